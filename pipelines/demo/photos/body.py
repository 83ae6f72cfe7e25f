"""Bare bodies: trunk, limbs, hands, head and hair. All of it is background to the mask."""

import colorsys

import numpy as np

from pipelines.demo.photos.canvas import Cloth
from pipelines.demo.photos.dressed_figure import DressedFigure
from pipelines.demo.photos.fabrics import plain, satin
from pipelines.demo.photos.figure import Limb
from pipelines.demo.photos.geometry import ellipse, limb, smooth

HAIR_STYLES = ("short", "bob", "long", "bun", "curls")
_SKIN = (
    (0.95, 0.80, 0.70),
    (0.90, 0.71, 0.58),
    (0.80, 0.60, 0.46),
    (0.64, 0.45, 0.33),
    (0.48, 0.32, 0.23),
    (0.36, 0.24, 0.18),
)
_HAIR = (
    (0.08, 0.06, 0.06),
    (0.20, 0.12, 0.08),
    (0.36, 0.22, 0.12),
    (0.62, 0.45, 0.25),
    (0.80, 0.68, 0.45),
    (0.48, 0.20, 0.10),
)
LEG_RADII, ARM_RADII = (0.044, 0.028, 0.017), (0.026, 0.020, 0.014)


def complexion(rng: np.random.Generator) -> tuple[Cloth, Cloth]:
    """Pick the skin and the hair of a figure."""
    skin = np.array(_SKIN[rng.integers(len(_SKIN))], np.float32)
    hair = np.array(_HAIR[rng.integers(len(_HAIR) if skin[0] > 0.7 else 3)], np.float32)
    if rng.random() < 0.04:
        hair = np.array(colorsys.hsv_to_rgb(rng.random(), 0.55, 0.8), np.float32)
    return (
        Cloth(plain(rng, skin, skin), roundness=0.028),
        Cloth(satin(rng, hair, hair), roundness=0.03, folds=0.003, fold_stretch=5.0, sheen=0.08),
    )


def draw_trunk(figure: DressedFigure) -> None:
    """Paint neck, shoulders and trunk."""
    half = [(0.022, 0.105), (0.024, 0.155), (0.055, 0.168), (0.103, 0.182), (0.100, 0.230), (0.084, 0.280),
            (0.066, 0.370), (0.080, 0.430), (0.088, 0.480), (0.086, 0.520), (0.020, 0.535)]  # fmt: skip
    figure.canvas.paint([figure.trunk(half)], figure.skin)
    figure.canvas.stroke(figure.bent([(-0.062, 0.184), (-0.010, 0.196)]), 0.003, 0, tone=0.86)
    figure.canvas.stroke(figure.bent([(0.062, 0.184), (0.010, 0.196)]), 0.003, 0, tone=0.86)


def draw_bare_leg(figure: DressedFigure, leg: Limb) -> None:
    """Paint a bare leg down to the ankle; the rear one lies in shade."""
    tone = 0.82 if leg.behind else 1.0
    figure.canvas.paint(limb(leg.joints, LEG_RADII), figure.skin, tone=tone)
    calf = 0.62 * leg.joints[1] + 0.38 * leg.joints[2]
    figure.canvas.stroke(ellipse(leg.joints[1] + (0.0, 0.008), 0.013, 0.008)[2:12], 0.003, 0, tone=0.86)
    figure.canvas.stroke(np.add([calf, leg.joints[2]], (leg.side * 0.006, 0.0)), 0.003, 0, tone=0.92)


def draw_bare_arm(figure: DressedFigure, arm: Limb) -> None:
    """Paint a bare arm to the wrist."""
    figure.canvas.paint(limb(arm.joints, ARM_RADII), figure.skin)


def hand_outlines(arm: Limb) -> list[np.ndarray]:
    """Return the palm, the fingers and the thumb at the end of an arm; empty for a hand in a pocket."""
    if arm.kind == "pocket":
        return []
    wrist, reach = arm.joints[2], arm.reach
    across = np.array([-reach[1], reach[0]]) * arm.side
    angle = float(np.arctan2(reach[1], reach[0]))
    palm = ellipse(wrist + 0.020 * reach, 0.027, 0.0155, angle)
    fingers = ellipse(wrist + 0.046 * reach + 0.003 * across, 0.021, 0.0115, angle)
    thumb = ellipse(wrist + 0.027 * reach + 0.014 * across, 0.015, 0.0055, angle + 0.5 * arm.side)
    return [palm, fingers, thumb]


def draw_hand(figure: DressedFigure, arm: Limb) -> None:
    """Paint the hand at the end of an arm."""
    outlines = hand_outlines(arm)
    if outlines:
        figure.canvas.paint(outlines, figure.skin, shadow=0.25)


def draw_hair_behind(figure: DressedFigure) -> None:
    """Paint the hair that falls behind the neck and the shoulders."""
    bottom = {"long": 0.285, "bob": 0.150, "curls": 0.165}.get(figure.hair_style)
    if bottom is None:
        return
    wide = {"long": 0.064, "bob": 0.062, "curls": 0.080}[figure.hair_style]
    half = [(0.020, 0.000), (0.046, 0.015), (wide * 0.92, 0.060), (wide, 0.110), (wide, bottom - 0.02), (0.030, bottom)]
    figure.canvas.paint([figure.trunk(half)], figure.hair, shadow=0.0, tone=0.75)


def draw_head(figure: DressedFigure) -> None:
    """Paint the face with its features and the hair around it."""
    face = [(0.018, 0.008), (0.039, 0.028), (0.044, 0.060), (0.041, 0.090), (0.027, 0.116), (0.011, 0.130)]
    ears = [figure.bent(ellipse((side * 0.043, 0.072), 0.008, 0.014)) for side in (-1, 1)]
    figure.canvas.paint([*ears, figure.trunk(face, 3)], figure.skin, shadow=0.45)
    _draw_features(figure)
    _draw_hair_front(figure)


def _draw_features(figure: DressedFigure) -> None:
    glance = figure.rng.uniform(-0.004, 0.004)
    skin = figure.skin.colour
    for side in (-1, 1):
        x = side * 0.0175 + glance
        figure.canvas.stroke(figure.bent([(x - 0.009, 0.0535), (x, 0.0505), (x + 0.009, 0.0535)]), 0.003, 0, tone=0.45)
        figure.canvas.spot(figure.bent(ellipse((x, 0.0635), 0.0078, 0.0036)), (0.93, 0.91, 0.89), 0, 0.75)
        figure.canvas.spot(figure.bent(ellipse((x, 0.0635), 0.0040, 0.0042)), (0.10, 0.07, 0.06), 0)
        figure.canvas.stroke(figure.bent([(x - 0.009, 0.0625), (x, 0.0592), (x + 0.009, 0.0625)]), 0.002, 0, tone=0.4)
        figure.canvas.spot(
            figure.bent(ellipse((side * 0.025 + glance, 0.083), 0.011, 0.009)), skin * (1.04, 0.84, 0.82), 0, 0.4
        )
    nose = [(glance + 0.004, 0.066), (glance + 0.008, 0.085), (glance, 0.0885), (glance - 0.006, 0.086)]
    figure.canvas.stroke(figure.bent(nose), 0.0025, 0, tone=0.72)
    lips = skin * (0.92, 0.52, 0.52) if figure.rng.random() < 0.6 else skin * (0.86, 0.66, 0.64)
    figure.canvas.spot(figure.bent(ellipse((glance, 0.1025), 0.0125, 0.0048)), lips, 0)
    figure.canvas.stroke(figure.bent([(glance - 0.012, 0.1025), (glance + 0.012, 0.1025)]), 0.0018, 0, tone=0.6)


def _draw_hair_front(figure: DressedFigure) -> None:
    part = figure.rng.uniform(-0.018, 0.018)
    low = {"short": 0.062, "bob": 0.118, "long": 0.150, "bun": 0.058, "curls": 0.105}[figure.hair_style]
    out = {"bob": 0.058, "long": 0.056, "curls": 0.072}.get(figure.hair_style, 0.047)
    top = {"curls": -0.024, "short": -0.010}.get(figure.hair_style, -0.008)
    fringe = [(0.034, low), (0.040, 0.060), (0.033, 0.036), (part, 0.024)]
    outer = [(part * 0.5, top), (0.032, top + 0.010), (out * 0.95, 0.030), (out, 0.070), (out, low + 0.004)]
    left = [(-x, y) for x, y in outer[:0:-1]]
    right_edge = [(-x, y) for x, y in fringe[:3]]
    outline = smooth([*outer, *fringe, *right_edge[::-1], *left], 2)
    shapes = [figure.bent(outline)]
    if figure.hair_style == "bun":
        shapes.append(figure.bent(ellipse((0.0, -0.016), 0.024, 0.022)))
    if figure.hair_style == "curls":
        turns = np.linspace(np.pi * 0.93, np.pi * 2.07, 12)
        shapes += [figure.bent(ellipse((0.064 * np.cos(t), 0.052 + 0.066 * np.sin(t)), 0.018, 0.018)) for t in turns]
    figure.canvas.paint(shapes, figure.hair, shadow=0.25)
