"""Footwear, hats, scarves and gloves, bags and belts."""

from collections.abc import Callable

import numpy as np

from pipelines.demo.photos.body import hand_outlines
from pipelines.demo.photos.canvas import Cloth
from pipelines.demo.photos.dressed_figure import DressedFigure
from pipelines.demo.photos.figure import Limb
from pipelines.demo.photos.geometry import along, ellipse, hem, limb, section, smooth


def draw_shoe(figure: DressedFigure, leg: Limb) -> None:
    """Paint a sneaker, an ankle boot or a tall boot on one foot."""
    cloth, ankle = figure.cloths["footwear"], leg.joints[2]
    tone = 0.85 if leg.behind else 1.0
    tall = {"sneaker": 0.93, "ankle boot": 0.74, "tall boot": 0.12}[figure.outfit.shoe]
    shin = section(leg.joints[[1, 1, 2]] + np.array([[0, 0], [0, 1e-3], [0, 0]]), tall, 1.0)
    tip = 0.057 if not leg.behind else 0.051
    toe = 0.004 * leg.side  # feet point a little outwards
    foot = smooth(ankle + np.array([
        (-0.022, -0.020), (0.022, -0.020), (0.030, tip * 0.4), (0.040 + toe, tip), (0.024, tip + 0.010),
        (-0.024, tip + 0.010), (-0.040 + toe, tip), (-0.030, tip * 0.4),
    ]), 2)  # fmt: skip
    wide = {"sneaker": 0.024, "ankle boot": 0.031, "tall boot": 0.035}[figure.outfit.shoe]
    figure.canvas.paint([*limb(shin, (wide, 0.5 * wide + 0.012, 0.024), capped=False), foot], cloth, tone=tone)
    sole = ankle + np.array([[-0.035, tip + 0.001], [0.0, tip + 0.006], [0.035, tip + 0.001]])
    if figure.outfit.shoe == "sneaker":
        figure.canvas.stroke(sole, 0.011, cloth.index, tone=3.0)
        for y in (-0.004, 0.008, 0.020):
            figure.canvas.stroke(ankle + np.array([[-0.014, y], [0.014, y + 0.002]]), 0.004, cloth.index, tone=2.6)
    else:
        figure.canvas.stroke(sole, 0.008, cloth.index, tone=0.35)
        figure.canvas.stroke(ankle + np.array([[-0.026, 0.012], [0.026, 0.012]]), 0.003, cloth.index, tone=0.6)


def draw_hat(figure: DressedFigure) -> None:
    """Paint a fedora, a bucket hat or a beret."""
    HATS[figure.outfit.hat](figure, figure.cloths["hat"])


def _draw_beret(figure: DressedFigure, cloth: Cloth) -> None:
    side = int(figure.rng.choice([-1, 1]))
    figure.canvas.paint([figure.bent(ellipse((0.016 * side, 0.004), 0.076, 0.038, 0.25 * side))], cloth)
    band = [(-0.046, 0.024), (0.046, 0.024), (0.046, 0.038), (-0.046, 0.038)]
    figure.canvas.paint([figure.bent(smooth(band, 1))], cloth, tone=0.8)


def _draw_fedora(figure: DressedFigure, cloth: Cloth) -> None:
    brim = ellipse((0.0, 0.028), 0.108, 0.0215, figure.rng.uniform(-0.08, 0.08))
    figure.canvas.paint([figure.bent(brim)], cloth, shadow=0.55)
    crown = [(0.0, -0.054), (0.014, -0.062), (0.040, -0.052), (0.050, 0.030)]
    figure.canvas.paint([figure.trunk(crown)], cloth, shadow=0.3)
    ribbon = [(0.0, 0.010), (0.047, 0.004), (0.048, 0.024), (0.0, 0.031)]
    figure.canvas.paint([figure.trunk(ribbon, 0)], cloth, tone=0.5, shadow=0.0)


def _draw_bucket(figure: DressedFigure, cloth: Cloth) -> None:
    outline = [(0.040, -0.046), (0.050, 0.004), (0.088, 0.044), (0.040, 0.052)]
    figure.canvas.paint([figure.trunk(outline)], cloth, shadow=0.55)
    for y, x in ((0.004, 0.050), (0.020, 0.062), (0.034, 0.074)):
        figure.canvas.stroke(figure.bent([(-x, y), (0.0, y + 0.008), (x, y)]), 0.003, cloth.index, tone=0.68)


HATS: dict[str, Callable[[DressedFigure, Cloth], None]] = {
    "beret": _draw_beret,
    "bucket": _draw_bucket,
    "fedora": _draw_fedora,
}


def draw_scarf(figure: DressedFigure) -> None:
    """Paint a scarf: one or two fringed ends and a thick wrap around the neck."""
    cloth = figure.cloths["scarf-gloves"]
    ends = [(int(figure.rng.choice([-1, 1])), figure.rng.uniform(0.40, 0.50))]
    if figure.rng.random() < 0.5:
        ends.append((-ends[0][0], figure.rng.uniform(0.33, 0.42)))
    for side, low in ends:
        strip = np.array([(0.012, 0.176), (0.062, 0.176), (0.072, low), (0.016, low)]) * (side, 1.0)
        figure.canvas.paint([figure.bent(strip)], cloth, angle=0.05 * side, shadow=0.55)
        thread = np.array([(-0.0025, -0.002), (0.0025, -0.002), (0.002, 0.020), (-0.002, 0.020)])
        fringe = [figure.bent(np.add(thread, (side * x, low))) for x in np.linspace(0.020, 0.068, 7)]
        figure.canvas.paint(fringe, cloth, shadow=0.2)
    wrap = [(0.0, 0.146), (0.050, 0.128), (0.074, 0.158), (0.064, 0.196), (0.0, 0.214)]
    figure.canvas.paint([figure.trunk(wrap)], cloth, angle=0.5, shadow=0.5)
    for y in (0.160, 0.180):
        fold = figure.bent([(-0.062, y - 0.010), (0.0, y + 0.012), (0.062, y - 0.012)])
        figure.canvas.stroke(fold, 0.004, cloth.index, tone=0.62)


def draw_glove(figure: DressedFigure, arm: Limb) -> None:
    """Paint a long glove over the hand and the lower forearm."""
    cloth = figure.cloths["scarf-gloves"]
    forearm = section(arm.joints, 0.74, 1.0)
    figure.canvas.paint([*limb(forearm, (0.027, 0.021, 0.017)), *hand_outlines(arm)], cloth, tone=0.9)


def draw_belt(figure: DressedFigure) -> None:
    """Paint a broad leather belt with a buckle at the waist."""
    cloth = figure.cloths["bag-belt"]
    wide = 0.112 if figure.wears("coat") else 0.070
    figure.canvas.paint(
        [figure.bent([(-wide, 0.358), (0.0, 0.366), (wide, 0.358), (wide, 0.388), (0.0, 0.396), (-wide, 0.388)])], cloth
    )
    buckle = figure.bent([(-0.017, 0.362), (0.017, 0.362), (0.017, 0.394), (-0.017, 0.394)])
    figure.canvas.stroke(buckle, 0.005, cloth.index, tone=3.5, closed=True)


def draw_bag(figure: DressedFigure, arm: Limb) -> None:
    """Paint the bag that an arm carries: by hand, in the crook of the elbow or from the shoulder."""
    if figure.outfit.bag == "shoulder bag":
        start = figure.bent([(-arm.side * 0.062, 0.172)])[0]
        top = figure.bent([(arm.side * 0.090, 0.455)])[0]
        strap = limb(np.array([start, 0.5 * (start + top), top]), (0.0085, 0.0085, 0.0085))
        _body(figure, np.add(top, (arm.side * 0.010, -0.010)), 0.066, 0.105, handle=strap, flap=True)
        return
    tote = figure.outfit.bag == "tote"
    hold = arm.joints[1] + (0.0, 0.010) if arm.kind == "crook" else along(arm.joints, 1.0) + 0.035 * arm.reach
    wide, tall, drop = (0.074, 0.150, 0.050) if tote else (0.082, 0.100, 0.036)
    ring = [
        np.add(hold, (0.55 * wide * np.cos(t), drop * (1.0 - np.sin(t)) - 0.004)) for t in np.linspace(0.0, np.pi, 11)
    ]
    handle = limb(np.array(ring), (0.0065,) * 11)
    _body(figure, np.add(hold, (0.0, drop - 0.008)), wide, tall, handle=handle, flap=not tote)


def _body(
    figure: DressedFigure, top: np.ndarray, wide: float, tall: float, *, handle: list[np.ndarray], flap: bool
) -> None:
    cloth = figure.cloths["bag-belt"]
    figure.canvas.paint(handle, cloth, shadow=0.3, tone=0.8)
    lower = hem(-wide, wide, tall, dip=0.006, waves=1, depth=0.0)
    outline = smooth(np.array([(-0.86 * wide, 0.0), (0.86 * wide, 0.0), *lower]), 1) + top
    figure.canvas.paint([outline], cloth, shadow=0.5)
    if flap:
        edge = top + np.array([(-0.93 * wide, 0.42 * tall), (0.0, 0.58 * tall), (0.93 * wide, 0.42 * tall)])
        figure.canvas.stroke(edge, 0.005, cloth.index, tone=0.5)
        figure.canvas.spot(ellipse(np.add(top, (0.0, 0.57 * tall)), 0.010, 0.008), (0.85, 0.74, 0.42), cloth.index)
    else:
        rim = top + np.array([(-0.86 * wide, 0.016), (0.86 * wide, 0.016)])
        figure.canvas.stroke(rim, 0.004, cloth.index, tone=0.55)
    inner = (outline - outline.mean(axis=0)) * 0.88 + outline.mean(axis=0)
    figure.canvas.stroke(inner, 0.002, cloth.index, tone=1.5, closed=True)
