"""Shows: what four successive photos share, that is designer, season, backdrop, light and palette."""

import colorsys
from dataclasses import dataclass

import numpy as np

PHOTOS_PER_SHOW = 4
BACKDROPS = ("runway", "studio", "city", "spotlights", "palazzo")
_FIRST = ("Maison", "Atelier", "Studio", "Casa", "Haus", "")
_NAMES = ("Verrault", "Ilse Brandt", "Okonedo", "Tamsin Hale", "Corvi", "Lindqvist", "Marisol Vega", "Pavlenko",
          "Aoyama", "Delacourt", "Rune Sorby", "Bellandi", "Noor Haddad", "Castellane", "Wexley", "Iduna")  # fmt: skip
_THEMES = ("tailoring", "travel", "garden", "city night", "workwear", "seaside", "folklore", "opera", "sport")


@dataclass(frozen=True)
class Show:
    """One show. `palette` is (K, 3) float32 RGB in 0..1; `lamp` points to the light (x, y, z), y down."""

    designer: str
    year: int
    season: str
    theme: str
    backdrop: str
    palette: np.ndarray
    lamp: tuple[float, float, float]
    cast: np.ndarray
    vignette: float

    @property
    def collection(self) -> str:
        """Return the name under which the show is filed."""
        return f"{self.designer} {self.season} {self.year}"


def show_of(seed: int) -> Show:
    """Return the show to which photo `seed` belongs; it depends on `seed // PHOTOS_PER_SHOW` alone."""
    number = seed // PHOTOS_PER_SHOW
    rng = np.random.default_rng([number, 7])
    warmth = rng.normal(0.0, 0.05)
    return Show(
        designer=f"{rng.choice(_FIRST)} {rng.choice(_NAMES)}".strip(),
        year=int(rng.integers(1985, 2025)),
        season=str(rng.choice(("Spring/Summer", "Autumn/Winter"))),
        theme=str(rng.choice(_THEMES)),
        backdrop=BACKDROPS[number % len(BACKDROPS)],
        palette=_palette(rng),
        lamp=(float(rng.uniform(-0.75, 0.75)), float(rng.uniform(-0.75, -0.3)), 1.0),
        cast=np.array([1.0 + warmth, 1.0 + 0.3 * rng.normal(0.0, 0.03), 1.0 - warmth], np.float32),
        vignette=float(rng.uniform(0.10, 0.38)),
    )


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Pick eight colours: four related hues, one opposite, three near-neutrals."""
    base = rng.random()
    hues = [base, base + 0.08, base - 0.10, base + rng.uniform(0.25, 0.4), base + 0.5]
    colours = [colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(0.28, 0.68), rng.uniform(0.38, 0.86)) for hue in hues]
    neutrals = [colorsys.hsv_to_rgb(rng.uniform(0.05, 0.13), rng.uniform(0.0, 0.25), v) for v in (0.22, 0.55, 0.88)]
    return np.array(colours + neutrals, np.float32)
