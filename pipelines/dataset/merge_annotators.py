"""Merge the masks that several people drew of one photo, and measure how far they disagree."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

_UNDECIDED = 65535  # larger than the index of any of a mask's values
_ITERATIONS = 30


def merge_masks(masks: Sequence[np.ndarray], policy: str) -> np.ndarray:
    """Merge (H, W) uint8 index masks, one per annotator, the newest last, by a policy of `POLICIES`.

    Where a policy does not decide a pixel (a tie), the newest mask does. Equal masks are returned as they are. `IGNORE`
    is a vote like any other: a pixel is ignored where most people, or those to whom STAPLE gives most weight, could not
    name it.
    """
    if all(np.array_equal(mask, masks[-1]) for mask in masks[:-1]):
        return masks[-1]
    return POLICIES[policy](masks)


def disagreement(masks: Sequence[np.ndarray]) -> float:
    """Return the share, 0..1, of disputed pixels among those that anybody labelled.

    A pixel is disputed when masks differ in it, also when one person names it and another calls it unclear.
    """
    labelled, disputed = masks[-1] > 0, np.zeros(masks[-1].shape, bool)
    for mask in masks[:-1]:
        labelled |= mask > 0
        disputed |= mask != masks[-1]
    return float(np.count_nonzero(disputed) / max(1, np.count_nonzero(labelled)))


def _latest(masks: Sequence[np.ndarray]) -> np.ndarray:
    return masks[-1]


def _majority(masks: Sequence[np.ndarray]) -> np.ndarray:
    merged, most = masks[-1].copy(), np.zeros(masks[-1].shape, np.uint16)
    for label_id in np.unique(np.concatenate([np.unique(mask) for mask in masks])):
        votes = np.sum([mask == label_id for mask in masks], axis=0, dtype=np.uint16) * 2
        votes += masks[-1] == label_id
        wins = votes > most
        merged[wins], most[wins] = label_id, votes[wins]
    return merged


def _staple(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Merge masks by weights that follow from how well each annotator agrees with the consensus.

    Rohlfing, Russakoff, Maurer, "Performance-Based Classifier Combination in Atlas-Based Image Segmentation Using
    Expectation-Maximization Parameter Estimation" (2004), as SimpleITK implements it.
    """
    import SimpleITK as itk

    ids = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    index = np.zeros(256, np.uint16)  # the filter's time grows with the largest label, and 8 bits overflow in it
    index[ids] = np.arange(ids.size)
    combine = itk.MultiLabelSTAPLEImageFilter()
    combine.SetLabelForUndecidedPixels(_UNDECIDED)
    combine.SetMaximumNumberOfIterations(_ITERATIONS)
    merged = itk.GetArrayFromImage(combine.Execute([itk.GetImageFromArray(index[mask]) for mask in masks]))
    return np.where(merged == _UNDECIDED, masks[-1], ids[np.minimum(merged, ids.size - 1)])


POLICIES: Mapping[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "latest": _latest,
    "majority": _majority,
    "staple": _staple,
}
