"""One garment, one label: regions that the model takes for either of two labels become one region.

A network decides pixel by pixel. Where it does not know whether a garment is a shirt or a blouse, the most probable
label of each pixel makes patches of both, and holes where the background is more probable than either alone. None of
them fits the garment, and people delete them all. Here labels whose regions are confused with each other are joined,
their probabilities added up, and the garment gets the label that has most of it. A wrong label costs one click.
"""

from typing import Final

import numpy as np

CONFUSED: Final = 0.35  # how probable the other label is in two labels' regions, compared with their own, on average


def one_label_per_garment(probabilities: np.ndarray) -> np.ndarray:
    """Return (C, h, w) float32 probabilities in which those of a garment are all in the plane of one label.

    The first channel is the background. Each pixel's probabilities add up to the same as before. Without labels that
    are confused, it is `probabilities` itself, which is never changed.
    """
    joined, groups = probabilities, {channel: [channel] for channel in range(len(probabilities))}
    while True:
        regions = joined.argmax(axis=0)
        pair = _most_confused(joined, regions)
        if pair is None:
            break
        joined = joined.copy() if joined is probabilities else joined
        kept, other = pair
        joined[kept] += joined[other]
        joined[other] = 0
        groups[kept] += groups.pop(other)
    for channel, members in groups.items():
        inside = regions == channel
        label = max(members, key=lambda member: float(probabilities[member][inside].sum()))
        if label != channel:
            joined[[label, channel]] = joined[[channel, label]]
    return joined


def _most_confused(probabilities: np.ndarray, regions: np.ndarray) -> tuple[int, int] | None:
    """Return the two channels of (h, w) regions that are confused most; None when none are."""
    present = np.flatnonzero(np.bincount(regions.ravel(), minlength=len(probabilities))[1:]) + 1
    if len(present) < 2:
        return None
    inside = [np.flatnonzero(regions == channel) for channel in present]
    planes = probabilities.reshape(len(probabilities), -1)
    means = np.array([[planes[other].take(pixels).mean() for other in present] for pixels in inside])
    shares = means / means.diagonal()[:, None]
    confused = np.triu(shares + shares.T, 1) / 2
    first, second = np.unravel_index(confused.argmax(), confused.shape)
    return (int(present[first]), int(present[second])) if confused[first, second] > CONFUSED else None
