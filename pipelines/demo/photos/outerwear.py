"""Jackets end at the hip, coats below the knee; both have lapels and, worn open, show what is underneath."""

import numpy as np

from pipelines.demo.photos.canvas import Cloth
from pipelines.demo.photos.dressed_figure import DressedFigure
from pipelines.demo.photos.geometry import Point, ellipse, mirrored, smooth


def draw_coat_back(figure: DressedFigure, length: float) -> None:
    """Paint the inside of a coat's back, which shows between and beside the legs."""
    half = [(0.030, 0.170), (0.110, 0.190), (0.118, 0.370), (0.140, 0.560), (0.160, length), (0.040, length + 0.006)]
    figure.canvas.paint([figure.bent(mirrored(half))], figure.cloths["coat"], tone=0.50, shadow=0.0)


def draw_coat(figure: DressedFigure, length: float) -> None:
    """Paint a long coat, open or buttoned up, with broad lapels and flap pockets."""
    cloth = figure.cloths["coat"]
    gaps = (-0.012, -0.012, -0.010) if figure.outfit.closed else _gaps(figure, 0.040, 0.066)
    for side in (-1, 1):
        edge = _edge(side, gaps, figure.outfit.closed)
        outside: list[Point] = [(0.032, 0.150), (0.074, 0.166), (0.122, 0.188), (0.128, 0.250), (0.110, 0.370),
                                (0.138, 0.560), (0.164, length)]  # fmt: skip
        _panel(figure, cloth, side, outside, edge, length)
        pocket = [(0.064, 0.500), (0.112, 0.492), (0.114, 0.512), (0.066, 0.520)]
        _flap(figure, cloth, side, pocket)
    for side in (-1, 1):
        _lapel(figure, cloth, side, edge_x=gaps[0], breadth=0.088, low=0.360)
    if figure.outfit.closed:
        for y in (0.385, 0.445, 0.505, 0.565):
            for x in (-0.030, 0.030):
                figure.canvas.spot(figure.bent(ellipse((x, y), 0.0085, 0.0085)), cloth.colour * 0.35, cloth.index)


def draw_jacket(figure: DressedFigure) -> None:
    """Paint a jacket to the hip, open in front, with notched lapels, pockets and a breast pocket."""
    cloth = figure.cloths["jacket"]
    length = figure.rng.uniform(0.525, 0.560)
    gaps = _gaps(figure, 0.030, 0.055)
    for side in (-1, 1):
        outside: list[Point] = [(0.032, 0.150), (0.072, 0.166), (0.120, 0.187), (0.126, 0.250), (0.106, 0.365),
                                (0.122, 0.470), (0.126, length)]  # fmt: skip
        _panel(figure, cloth, side, outside, _edge(side, gaps, False), length)
        _flap(figure, cloth, side, [(0.062, 0.452), (0.108, 0.446), (0.110, 0.466), (0.064, 0.472)])
    for side in (-1, 1):
        _lapel(figure, cloth, side, edge_x=gaps[0], breadth=0.080, low=0.350)
    breast = [(-0.088, 0.268), (-0.060, 0.272)]
    figure.canvas.stroke(figure.bent(breast), 0.005, cloth.index, tone=0.6)
    for y in (0.375, 0.415):
        figure.canvas.spot(
            figure.bent(ellipse((gaps[1] + 0.012, y), 0.006, 0.006)), cloth.colour * 0.3 + 0.05, cloth.index
        )


def _gaps(figure: DressedFigure, low: float, high: float) -> tuple[float, float, float]:
    """Return how far the front edge is from the middle at the chest, the waist and the hem."""
    waist = figure.rng.uniform(low, high)
    return 0.9 * waist, waist, waist * figure.rng.uniform(1.0, 1.5)


def _edge(side: int, gaps: tuple[float, float, float], closed: bool) -> tuple[float, float, float]:
    """Let the right panel of a closed coat end under the left one."""
    return gaps if not closed or side < 0 else (0.0, 0.0, 0.004)


def _panel(
    figure: DressedFigure,
    cloth: Cloth,
    side: int,
    outside: list[Point],
    edge: tuple[float, float, float],
    length: float,
) -> None:
    hem = (outside[-1][0], length)
    front: list[Point] = [
        hem,
        (edge[2], length + 0.010),
        (edge[2], length + 0.010),
        (edge[1], 0.420),
        (edge[0] + 0.004, 0.330),
        (0.020, 0.165),
    ]
    outline = smooth([(side * x, y) for x, y in [*outside, *front]], 1)
    figure.canvas.paint([figure.bent(outline)], cloth, shadow=0.50)
    rim = figure.bent([(side * (x + 0.006), y) for x, y in front[2:4]])
    figure.canvas.stroke(rim, 0.0025, cloth.index, tone=0.75)


def _lapel(figure: DressedFigure, cloth: Cloth, side: int, *, edge_x: float, breadth: float, low: float) -> None:
    outline: list[Point] = [(0.024, 0.144), (0.044, 0.150), (0.066, 0.192), (breadth - 0.016, 0.206), (breadth, 0.226),
                            (edge_x + 0.012, low), (edge_x, low - 0.01), (0.024, 0.200)]  # fmt: skip
    points = figure.bent([(side * x, y) for x, y in outline])
    figure.canvas.paint([points], cloth, angle=0.35 * side, tone=1.10, shadow=0.45)
    notch = figure.bent([(side * 0.030, 0.206), (side * 0.068, 0.200)])
    figure.canvas.stroke(notch, 0.004, cloth.index, tone=0.5)
    figure.canvas.stroke(points, 0.0025, cloth.index, tone=0.66, closed=True)


def _flap(figure: DressedFigure, cloth: Cloth, side: int, outline: list[Point]) -> None:
    points = figure.bent([(side * x, y) for x, y in outline])
    figure.canvas.stroke(points, 0.0035, cloth.index, tone=0.55, closed=True)
    figure.canvas.stroke(np.add(points[[3, 2]], (0.0, 0.004)), 0.005, cloth.index, tone=0.72)
