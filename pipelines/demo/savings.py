"""What masks saved in each round of the demo, whose simulated labelers tell what each photo takes without masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PhotoTime:
    """The seconds that a simulated labeler took for a photo, and those of drawing all of it."""

    seconds: float
    by_hand: float
    had_masks: bool


@dataclass(frozen=True)
class Saving:
    """Minutes that masks saved per photo that had some, with the 95 % interval of their mean; below 0 they cost time.

    `photos` had masks. The interval is None below three such photos. `seconds` and `by_hand` are means over all photos
    of the round, those that were drawn blind among them.
    """

    photos: int
    minutes: float | None
    low: float | None
    high: float | None
    seconds: float
    by_hand: float

    def __str__(self) -> str:
        """Return it in one line."""
        if self.minutes is None:
            return f"no photo had masks; each took {self.seconds:.0f} s"
        interval = "" if self.low is None else f" (95 %: {self.low:.2f} … {self.high:.2f})"
        return f"masks saved {self.minutes:.2f} min per photo{interval} on {self.photos} photos"


def saving_of(times: Sequence[PhotoTime]) -> Saving:
    """Return what masks saved on the photos of a round: the mean of paired differences, and Student's t.

    Raise ValueError without any photo.
    """
    if not times:
        raise ValueError("a round has no photo")
    saved = np.sort([(time.by_hand - time.seconds) / 60 for time in times if time.had_masks])  # in any order the same
    seconds = float(np.mean(sorted(time.seconds for time in times)))
    by_hand = float(np.mean(sorted(time.by_hand for time in times)))
    if not saved.size:
        return Saving(0, None, None, None, seconds, by_hand)
    mean, low, high = float(saved.mean()), None, None
    if saved.size >= 3:
        reach = float(stats.t.ppf(0.975, saved.size - 1) * saved.std(ddof=1) / np.sqrt(saved.size))
        low, high = mean - reach, mean + reach
    return Saving(len(saved), mean, low, high, seconds, by_hand)


def draw_savings(rounds: Sequence[tuple[int, float, Saving]], path: Path) -> None:
    """Draw each round's seconds per photo, by hand and as it was, and minutes saved, over the photos labelled.

    A round is the number of its photos, its model's mIoU on the test photos, and what masks saved.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    photos = np.cumsum([count for count, _, _ in rounds])
    savings = [saving for _, _, saving in rounds]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    seconds, saved = figure.subplots(1, 2)
    seconds.plot(photos, [saving.by_hand for saving in savings], "o--", color="#888888", label="by hand")
    seconds.plot(photos, [saving.seconds for saving in savings], "o-", label="in this round")
    seconds.set(xlabel="photos labelled", ylabel="seconds per photo", xticks=photos)
    seconds.set_ylim(bottom=0)
    seconds.legend(frameon=False)
    for place, saving in zip(photos, savings, strict=True):
        if saving.minutes is None:
            continue
        ends = [[0.0], [0.0]]
        if saving.low is not None and saving.high is not None:
            ends = [[saving.minutes - saving.low], [saving.high - saving.minutes]]
        saved.errorbar([place], [saving.minutes], ends, fmt="o", capsize=4, color="#1f77b4")
    saved.axhline(0, color="#888888", linewidth=0.8)
    saved.set(
        xlabel="photos labelled", ylabel="minutes saved per photo", title="with masks, against by hand", xticks=photos
    )
    for axes in (seconds, saved):
        axes.set_xlim(0, 1.15 * float(photos[-1]))
    for place, (_, miou, saving) in zip(photos, rounds, strict=True):
        seconds.annotate(
            f"mIoU then {miou:.2f}",
            (place, saving.seconds),
            (0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
