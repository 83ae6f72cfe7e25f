"""Outfits: who wears what, from which cloth.

Twenty templates are dealt out like a shuffled pack, so that any twenty successive photos hold every template once and
each label comes up often enough to be learned from a small archive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipelines.demo.photos.canvas import Cloth
from pipelines.demo.photos.fabrics import WEAVERS

GARMENTS = (
    "bag-belt", "coat", "dress", "footwear", "hat", "jacket", "knitwear", "pants", "scarf-gloves", "shirt", "skirt"
)  # fmt: skip


@dataclass(frozen=True)
class Outfit:
    """The labels worn, `worn` without the footwear everybody wears; the rest are choices of cut."""

    worn: frozenset[str]
    closed: bool  # the coat is buttoned up
    cut: str  # of the pants
    shoe: str
    bag: str
    hat: str
    belt: bool
    gloves: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """Return every label of the outfit, sorted."""
        return tuple(sorted(self.worn | {"footwear"}))


TEMPLATES = (
    "dress jacket", "dress hat", "dress bag-belt", "dress scarf-gloves", "dress coat bag-belt", "dress jacket",
    "shirt pants scarf-gloves", "shirt pants hat bag-belt", "shirt pants jacket", "shirt pants coat",
    "shirt skirt", "shirt skirt scarf-gloves bag-belt", "shirt skirt jacket hat", "shirt skirt coat",
    "knitwear pants", "knitwear pants bag-belt scarf-gloves", "knitwear pants jacket hat",
    "knitwear skirt", "knitwear skirt hat coat", "closed coat pants scarf-gloves bag-belt",
)  # fmt: skip

_MATERIALS = {  # label: (weaver, how deep folds are, how long, sheen), one of which is picked
    "coat": (("wool", 0.004, 7.0, 0.0), ("herringbone", 0.004, 7.0, 0.0), ("wool", 0.005, 7.0, 0.0)),
    "dress": (("flowers", 0.006, 6.0, 0.0), ("dots", 0.006, 6.0, 0.0), ("satin", 0.010, 7.0, 0.22)),
    "footwear": (("leather", 0.0, 1.0, 0.22), ("leather", 0.0, 1.0, 0.10)),
    "hat": (("wool", 0.0, 1.0, 0.0), ("plain", 0.0, 1.0, 0.05)),
    "jacket": (("leather", 0.004, 1.5, 0.16), ("pinstripe", 0.003, 3.0, 0.0), ("plain", 0.003, 3.0, 0.0)),
    "knitwear": (("knit", 0.003, 2.0, 0.0),),
    "pants": (("denim", 0.005, 1.6, 0.0), ("denim", 0.005, 1.6, 0.0), ("plain", 0.003, 3.5, 0.0)),
    "scarf-gloves": (("tartan", 0.005, 3.0, 0.0),),
    "shirt": (("stripes", 0.004, 2.0, 0.0), ("plain", 0.0035, 2.0, 0.0), ("stripes", 0.004, 2.0, 0.0)),
    "skirt": (("plain", 0.004, 9.0, 0.0), ("satin", 0.004, 9.0, 0.10), ("plain", 0.004, 9.0, 0.06)),
    "bag-belt": (("leather", 0.0, 1.0, 0.25),),
}
_DENIM = np.array([[0.20, 0.29, 0.45], [0.33, 0.45, 0.62], [0.52, 0.63, 0.75], [0.14, 0.17, 0.25]], np.float32)


def outfit_of(seed: int) -> Outfit:
    """Deal the outfit of photo `seed`."""
    pack, place = divmod(seed, len(TEMPLATES))
    order = np.random.default_rng([pack, 11]).permutation(len(TEMPLATES))
    words = TEMPLATES[order[place]].split()
    rng = np.random.default_rng([seed, 12])
    worn = frozenset(words) - {"closed"}
    return Outfit(
        worn=worn,
        closed="closed" in words,
        cut=str(rng.choice(("slim", "straight", "wide"))),
        shoe=str(rng.choice(("ankle boot", "sneaker") if "pants" in worn else ("tall boot", "ankle boot", "sneaker"))),
        bag=str(rng.choice(("handbag", "tote", "shoulder bag"))),
        hat=str(rng.choice(("fedora", "bucket", "beret"))),
        belt=bool("bag-belt" in worn and (worn & {"dress"} or "closed" in words) and rng.random() < 0.6),
        gloves=bool("scarf-gloves" in worn and rng.random() < 0.45),
    )


def cut_cloths(
    outfit: Outfit, palette: np.ndarray, label_ids: Mapping[str, int], rng: np.random.Generator
) -> dict[str, Cloth]:
    """Weave one cloth for each label of an outfit, each colour as far from the earlier ones as the palette allows."""
    cloths: dict[str, Cloth] = {}
    for label in outfit.labels:
        materials = _MATERIALS[label]
        weaver, folds, stretch, sheen = materials[rng.integers(len(materials))]
        tries = [_colour(label, weaver, palette, rng) for _ in range(6)]
        colour = max(tries, key=lambda c: min((_distance(c, other.colour) for other in cloths.values()), default=0.0))
        accent = _accent(colour, palette, rng, pale=label == "shirt")
        tile = WEAVERS[weaver](rng, colour, accent)
        cloths[label] = Cloth(tile, label_ids[label], folds=folds, fold_stretch=stretch, sheen=sheen)
    if "knitwear" in cloths:
        knit = cloths["knitwear"]
        cloths["rib"] = replace(knit, tile=WEAVERS["rib"](rng, knit.colour * 1.15, knit.colour))
    return cloths


def _colour(label: str, weaver: str, palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pick a colour of the palette, brought into the range of brightness in which the material is usually seen."""
    colour = palette[rng.integers(len(palette))] * rng.uniform(0.85, 1.15)
    if weaver == "denim":
        colour = _DENIM[rng.integers(len(_DENIM))] * rng.uniform(0.9, 1.1)
    elif label == "shirt":
        colour = 1.0 - (1.0 - colour) * rng.uniform(0.12, 0.50)
    elif label in ("jacket", "footwear", "bag-belt"):
        colour = colour * rng.uniform(0.35, 0.85)
    elif label == "knitwear":
        colour = 0.25 + 0.75 * colour
    return np.clip(colour, 0.06, 0.95).astype(np.float32)


def _accent(colour: np.ndarray, palette: np.ndarray, rng: np.random.Generator, *, pale: bool) -> np.ndarray:
    """Return the palette's clearest contrast among three draws; for a pale ground a mid-tone."""
    tries = palette[rng.integers(len(palette), size=3)]
    best = max(tries, key=lambda c: _distance(c, colour))
    return (0.35 + 0.45 * best if pale else best).astype(np.float32)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum())
