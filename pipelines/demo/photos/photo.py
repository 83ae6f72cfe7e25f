"""One synthetic photo: a figure is dressed from the inside out and photographed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.demo.photos import accessories, body, garments, outerwear
from pipelines.demo.photos.camera import expose
from pipelines.demo.photos.canvas import OVERSAMPLE, Canvas, Placement
from pipelines.demo.photos.dressed_figure import DressedFigure
from pipelines.demo.photos.figure import Limb, sample_pose
from pipelines.demo.photos.outfits import GARMENTS, Outfit, cut_cloths, outfit_of
from pipelines.demo.photos.scene import cast_floor_shadow, draw_backdrop
from pipelines.demo.photos.shows import Show, show_of
from pipelines.errors import ContractError

MIN_AREA_SHARE = 0.008
_ATTEMPTS = 6


@dataclass(frozen=True)
class SyntheticPhoto:
    """A photo, its exact mask and what can be seen in it.

    `image` is (H, W, 3) uint8 RGB, `mask` (H, W) uint8 with 0 for background and otherwise the id of the label,
    `garments` the sorted names of the labels in the mask.
    """

    image: np.ndarray
    mask: np.ndarray
    garments: tuple[str, ...]


def draw_photo(seed: int, label_ids: Mapping[str, int], size: tuple[int, int] = (600, 400)) -> SyntheticPhoto:
    """Draw photo number `seed` (0 or more) with `size` (height, width).

    The same arguments give the same pixels; four successive seeds belong to one show. Every garment of the outfit
    covers at least MIN_AREA_SHARE of the photo: a pose that hides one is drawn again.

    Raises ContractError when `label_ids` lacks a label of `outfits.GARMENTS`.
    """
    missing = sorted(set(GARMENTS) - set(label_ids))
    if missing:
        raise ContractError(f"label_ids lacks {', '.join(missing)}; the synthetic photos need every one of {GARMENTS}")
    outfit, show = outfit_of(seed), show_of(seed)
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        rgb, mask = _draw(outfit, show, label_ids, size, rng)
        share = np.bincount(mask.ravel(), minlength=256) / mask.size
        if all(share[label_ids[label]] >= MIN_AREA_SHARE for label in outfit.labels):
            break
    seen = tuple(label for label in GARMENTS if share[label_ids[label]] > 0)
    return SyntheticPhoto(expose(rgb, show, rng), mask, seen)


def _draw(
    outfit: Outfit, show: Show, label_ids: Mapping[str, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint backdrop and figure; returns (H, W, 3) float32 in 0..1 and the (H, W) uint8 mask."""
    pose = sample_pose(rng, _arm_kinds(outfit, rng))
    scene = draw_backdrop(show.backdrop, rng, size, show.palette)
    placement = _placement(outfit, size, rng)
    feet = [placement.pixels(np.add(leg.joints[2:], (0.0, 0.055)))[0] / OVERSAMPLE for leg in pose.legs]
    cast_floor_shadow(scene, feet, show.lamp)
    skin, hair = body.complexion(rng)
    figure = DressedFigure(
        canvas=Canvas(scene, placement, show.lamp, rng),
        pose=pose,
        outfit=outfit,
        cloths=cut_cloths(outfit, show.palette, label_ids, rng),
        skin=skin,
        hair=hair,
        hair_style=str(rng.choice(body.HAIR_STYLES)),
        rng=rng,
    )
    _dress(figure)
    return figure.canvas.picture()


def _placement(outfit: Outfit, size: tuple[int, int], rng: np.random.Generator) -> Placement:
    height, width = size[0] * OVERSAMPLE, size[1] * OVERSAMPLE
    tall = rng.uniform(0.85, 0.895) * min(height, 1.5 * width)
    soles = rng.uniform(0.965, 0.985) * height
    return Placement(width * rng.uniform(0.44, 0.56), soles - tall, tall, rng.uniform(0.92, 1.04))


def _arm_kinds(outfit: Outfit, rng: np.random.Generator) -> tuple[str, str]:
    """Pick the gestures of the left and the right arm; a bag needs an arm that carries it."""
    free = str(rng.choice(("swing", "hip", "pocket", "across"), p=(0.5, 0.2, 0.18, 0.12)))
    other = str(rng.choice(("swing", "pocket", "hip"), p=(0.7, 0.15, 0.15)))
    if "bag-belt" in outfit.worn:
        other = "swing" if outfit.bag == "shoulder bag" else str(rng.choice(("carry", "crook")))
    return (free, other) if rng.random() < 0.5 else (other, free)


def _dress(figure: DressedFigure) -> None:
    """Paint the figure from back to front."""
    coat_length = figure.rng.uniform(0.74, 0.84)
    body.draw_hair_behind(figure)
    if figure.wears("coat"):
        outerwear.draw_coat_back(figure, coat_length)
    for arm in figure.pose.arms:
        if arm.behind:
            _draw_arm(figure, arm)
    body.draw_trunk(figure)
    _draw_legs(figure)
    for label, draw_garment in garments.GARMENTS.items():
        if figure.wears(label):
            draw_garment(figure)
    if figure.wears("coat"):
        outerwear.draw_coat(figure, coat_length)
    if figure.wears("jacket"):
        outerwear.draw_jacket(figure)
    if figure.outfit.belt:
        accessories.draw_belt(figure)
    if figure.wears("shirt"):
        garments.draw_collar(figure)
    _draw_above(figure)


def _draw_legs(figure: DressedFigure) -> None:
    for leg in figure.pose.legs:
        body.draw_bare_leg(figure, leg)
        accessories.draw_shoe(figure, leg)


def _draw_above(figure: DressedFigure) -> None:
    """Paint head, scarf and hat, the arms in front and the bag."""
    bearer = figure.pose.arms[0] if figure.pose.arms[0].kind in ("carry", "crook") else figure.pose.arms[1]
    shoulder_bag = figure.outfit.bag == "shoulder bag"
    if figure.wears("bag-belt") and shoulder_bag:
        accessories.draw_bag(figure, bearer)
    body.draw_head(figure)
    if figure.wears("scarf-gloves"):
        accessories.draw_scarf(figure)
    if figure.wears("hat"):
        accessories.draw_hat(figure)
    for arm in figure.pose.arms:
        if not arm.behind:
            _draw_arm(figure, arm)
    if figure.wears("bag-belt") and not shoulder_bag:
        accessories.draw_bag(figure, bearer)
        if bearer.kind == "carry" and not figure.outfit.gloves:
            body.draw_hand(figure, bearer)


def _draw_arm(figure: DressedFigure, arm: Limb) -> None:
    """Paint an arm with hand and the sleeve of the outermost garment."""
    tone = 0.86 if arm.behind else 1.0
    if not figure.wears("shirt", "knitwear", "jacket", "coat"):
        body.draw_bare_arm(figure, arm)
    body.draw_hand(figure, arm)
    if figure.wears("coat"):
        garments.draw_sleeve(figure, arm, figure.cloths["coat"], (0.034, 0.034, 0.029), tone=tone)
    elif figure.wears("jacket"):
        garments.draw_sleeve(figure, arm, figure.cloths["jacket"], (0.032, 0.031, 0.025), tone=tone)
    elif figure.wears("knitwear"):
        garments.draw_sleeve(figure, arm, figure.cloths["knitwear"], (0.032, 0.033, 0.027), until=0.9, tone=tone)
        garments.draw_cuff(figure, arm, figure.cloths["rib"], 0.023, start=0.88, end=0.99)
    elif figure.wears("shirt"):
        garments.draw_sleeve(figure, arm, figure.cloths["shirt"], (0.028, 0.028, 0.023), until=0.92, tone=tone)
        garments.draw_cuff(figure, arm, figure.cloths["shirt"], 0.023, start=0.90, end=0.99)
    if figure.outfit.gloves:
        accessories.draw_glove(figure, arm)
