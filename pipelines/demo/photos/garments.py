"""Shirt, knitwear, dress, skirt and pants: what is worn next to the body.

Each has the outline, the position and the details that tell it from the others: the shirt its collar and button line,
knitwear its stitches and ribs, the dress its waist and bare neckline, the skirt its waistband and pleats.
"""

from collections.abc import Callable

import numpy as np

from pipelines.demo.photos.canvas import Cloth
from pipelines.demo.photos.dressed_figure import DressedFigure
from pipelines.demo.photos.figure import Limb
from pipelines.demo.photos.geometry import Point, ellipse, hem, limb, mirrored, section


def draw_sleeve(
    figure: DressedFigure,
    arm: Limb,
    cloth: Cloth,
    radii: tuple[float, float, float],
    *,
    until: float = 0.97,
    tone: float = 1.0,
) -> None:
    """Paint a sleeve from the shoulder to the share `until` of the arm's length, with folds at the elbow."""
    joints = section(arm.joints, 0.0, until)
    joints[0] += (-0.010 * arm.side, 0.020)  # the top of the sleeve sits below the seam of the shoulder
    for bone, wide in ((joints[:2], radii[:2]), (joints[1:], radii[1:])):
        figure.canvas.paint(limb(bone, wide, capped=False), cloth, angle=_grain_angle(bone), tone=tone, shadow=0.45)
    across = np.array([-arm.reach[1], arm.reach[0]])
    for share in (-0.012, 0.010):
        bend = arm.joints[1] + share * arm.reach
        line = np.array([bend - 0.6 * radii[1] * across, bend + 0.2 * radii[1] * across])
        figure.canvas.stroke(line, 0.003, cloth.index, tone=0.72)


def draw_cuff(figure: DressedFigure, arm: Limb, cloth: Cloth, radius: float, *, start: float, end: float) -> None:
    """Paint the band that closes a sleeve between two shares of the arm's length."""
    joints = section(arm.joints, start, end)
    figure.canvas.paint(limb(joints, (radius,) * 3, capped=False), cloth, angle=_grain_angle(joints), shadow=0.2)


def _grain_angle(joints: np.ndarray) -> float:
    """Return how far cloth is turned that runs along a chain of joints, in radians; 0 for a limb that hangs down."""
    reach = joints[-1] - joints[0]
    return float(np.arctan2(reach[1], reach[0]) - np.pi / 2)


def draw_shirt(figure: DressedFigure) -> None:
    """Paint a tucked shirt with an open collar, a button line and a pocket."""
    cloth = figure.cloths["shirt"]
    half = [(0.026, 0.158), (0.060, 0.166), (0.106, 0.182), (0.108, 0.230), (0.093, 0.290), (0.078, 0.370),
            (0.080, 0.412), (0.050, 0.418), (0.020, 0.418)]  # fmt: skip
    figure.canvas.paint([figure.trunk(half, 2)], cloth)
    throat = figure.bent([(-0.020, 0.150), (0.020, 0.150), (0.0, 0.205)])
    figure.canvas.paint([throat], figure.skin, shadow=0.0, tone=0.92)
    for side in (-0.009, 0.009):
        figure.canvas.stroke(figure.bent([(side, 0.200), (side, 0.42)]), 0.0025, cloth.index, tone=0.74)
    for y in (0.222, 0.258, 0.294, 0.330, 0.366):
        figure.canvas.spot(figure.bent(ellipse((0.0, y), 0.0048, 0.0048)), cloth.colour * 0.40, cloth.index)
    pocket = figure.bent([(0.034, 0.262), (0.068, 0.262), (0.068, 0.300), (0.051, 0.307), (0.034, 0.300)])
    figure.canvas.stroke(pocket, 0.0025, cloth.index, tone=0.76, closed=True)


def draw_collar(figure: DressedFigure) -> None:
    """Paint the two points of a shirt collar; above jackets and coats."""
    for side in (-1, 1):
        point: list[Point] = [(0.019, 0.142), (0.032, 0.150), (0.058, 0.176), (0.046, 0.208), (0.004, 0.194)]
        outline = figure.bent([(side * x, y) for x, y in point])
        figure.canvas.paint([outline], figure.cloths["shirt"], angle=0.6 * side, tone=1.06, shadow=0.40)


def draw_knitwear(figure: DressedFigure) -> None:
    """Paint a sweater over the waistband, with a ribbed hem and a roll or round neck."""
    bottom = 0.505 if figure.wears("pants") else 0.445
    half = [(0.030, 0.152), (0.062, 0.162), (0.112, 0.184), (0.118, 0.240), (0.104, 0.300), (0.098, 0.380),
            (0.104, bottom - 0.02), (0.096, bottom), (0.03, bottom + 0.004)]  # fmt: skip
    figure.canvas.paint([figure.trunk(half, 2)], figure.cloths["knitwear"])
    waist = figure.bent(
        [(-0.097, bottom - 0.020), (0.097, bottom - 0.020), (0.092, bottom + 0.012), (-0.092, bottom + 0.012)]
    )
    figure.canvas.paint([waist], figure.cloths["rib"], shadow=0.25)
    if figure.rng.random() < 0.6:
        half = [(0.028, 0.120), (0.031, 0.150), (0.036, 0.172), (0.010, 0.178)]
    else:
        half = [(0.030, 0.146), (0.040, 0.158), (0.034, 0.184), (0.010, 0.192)]
    figure.canvas.paint([figure.trunk(half, 2)], figure.cloths["rib"], shadow=0.35)


def draw_skirt(figure: DressedFigure) -> None:
    """Paint a pleated, flared skirt with a waistband."""
    cloth = figure.cloths["skirt"]
    length = figure.rng.choice([0.66, 0.74, 0.82])
    wide, swing = _sweep(figure, 0.135, 0.180)
    outline = [(-0.066, 0.392), (0.066, 0.392), (0.094, 0.480), (wide + swing, length),
               *hem(-wide + swing, wide + swing, length, dip=0.014, waves=5, depth=0.004), (-0.094, 0.480)]  # fmt: skip
    figure.canvas.paint([figure.bent(outline)], cloth)
    for share in np.linspace(-0.86, 0.86, 9):
        pleat = [(share * 0.064, 0.412), (share * 0.090, 0.480), (share * wide + swing, length + 0.01)]
        figure.canvas.stroke(figure.bent(pleat), 0.0050, cloth.index, tone=0.68)
        light = [(x + 0.007, y) for x, y in pleat]
        figure.canvas.stroke(figure.bent(light), 0.0035, cloth.index, tone=1.22)
    band = figure.bent([(-0.070, 0.386), (0.070, 0.386), (0.073, 0.414), (-0.073, 0.414)])
    figure.canvas.paint([band], cloth, tone=0.84, shadow=0.2)


def _sweep(figure: DressedFigure, low: float, high: float) -> tuple[float, float]:
    """Return half the width of a hem and its swing to one side; a coat over it holds both in."""
    if figure.wears("coat"):
        return figure.rng.uniform(0.100, 0.116), figure.rng.uniform(-0.008, 0.008)
    return figure.rng.uniform(low, high), figure.rng.uniform(-0.025, 0.025)


def draw_dress(figure: DressedFigure) -> None:
    """Paint a one-piece dress: bare neckline, seam at the waist, flowing lower part."""
    cloth = figure.cloths["dress"]
    length = figure.rng.choice([0.66, 0.76, 0.85])
    wide, swing = _sweep(figure, 0.115, 0.185)
    neck = figure.rng.choice([0.205, 0.235])
    top = [(0.0, neck + 0.012), (0.040, neck), (0.058, 0.170), (0.082, 0.176), (0.090, 0.235), (0.088, 0.280),
           (0.064, 0.370), (0.096, 0.470), (0.55 * wide + 0.055, 0.5 * (length + 0.47))]  # fmt: skip
    left = [(-x, y) for x, y in top[:0:-1]]
    skirt = hem(-wide + swing, wide + swing, length, dip=0.012, waves=3, depth=0.005)
    figure.canvas.paint([figure.bent([*top, *skirt, *left])], cloth)
    figure.canvas.stroke(figure.bent([(-0.066, 0.372), (0.0, 0.378), (0.066, 0.372)]), 0.008, cloth.index, tone=0.55)
    for share in (-0.6, -0.2, 0.25, 0.65):
        line = [(share * 0.070, 0.385), (share * wide + swing, length - 0.02)]
        figure.canvas.stroke(figure.bent(line), 0.004, cloth.index, tone=0.80)


def draw_pants(figure: DressedFigure) -> None:
    """Paint both trouser legs and the hips in one piece, then creases, waistband, fly and pockets."""
    cloth = figure.cloths["pants"]
    knee, ankle = {"slim": (0.037, 0.029), "straight": (0.046, 0.043), "wide": (0.048, 0.056)}[figure.outfit.cut]
    shapes = [figure.bent(mirrored([(0.070, 0.392), (0.080, 0.430), (0.098, 0.490), (0.094, 0.540), (0.012, 0.555)]))]
    for leg in figure.pose.legs:
        joints = np.vstack([leg.joints[:2], [leg.joints[2] - (0.0, 0.006)]])
        shapes += limb(joints, (0.052, knee, ankle), capped=False)
    figure.canvas.paint(shapes, cloth, shadow=0.4)
    for leg in figure.pose.legs:
        crease = leg.joints + np.array([[0.006, 0.050], [0.004, 0.0], [0.004, 0.0]]) * (leg.side, 1.0)
        figure.canvas.stroke(crease, 0.003, cloth.index, tone=0.84)
    front = figure.pose.legs[1]
    inseam = np.array([figure.pose.spot(0.0, 0.515), front.joints[1] - (front.side * knee, 0.0)])
    figure.canvas.stroke(inseam, 0.004, cloth.index, tone=0.62)
    _draw_waistband(figure)


def _draw_waistband(figure: DressedFigure) -> None:
    """Paint waistband, fly and pockets of the pants."""
    cloth = figure.cloths["pants"]
    band = figure.bent([(-0.072, 0.388), (0.072, 0.388), (0.075, 0.412), (-0.075, 0.412)])
    figure.canvas.paint([band], cloth, tone=0.88, shadow=0.2)
    figure.canvas.stroke(figure.bent([(0.0, 0.412), (0.002, 0.500)]), 0.003, cloth.index, tone=0.6)
    for side in (-1, 1):
        pocket = [(side * 0.044, 0.413), (side * 0.058, 0.446), (side * 0.086, 0.458)]
        figure.canvas.stroke(figure.bent(pocket), 0.003, cloth.index, tone=0.6)
    figure.canvas.spot(figure.bent(ellipse((0.0, 0.400), 0.005, 0.005)), (0.75, 0.68, 0.45), cloth.index)


GARMENTS: dict[str, Callable[[DressedFigure], None]] = {  # from the inside out
    "pants": draw_pants,
    "skirt": draw_skirt,
    "dress": draw_dress,
    "shirt": draw_shirt,
    "knitwear": draw_knitwear,
}
