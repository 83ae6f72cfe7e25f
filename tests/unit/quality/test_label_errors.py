"""What looks wrong to a model, on photos where the model is known to be right."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.params import IGNORE
from pipelines.quality.label_errors import JudgedPhoto, LabelIssue, find_label_issues

COAT, DRESS = 3, 7
LABELS = {"coat": COAT, "dress": DRESS}
RIGHT = slice(0, 40), slice(40, 80)  # rows that show a coat, and a dress


def mask(coat: slice = RIGHT[0], dress: slice = RIGHT[1]) -> np.ndarray:
    """A 240×160 mask with these rows drawn."""
    drawn = np.zeros((240, 160), np.uint8)
    drawn[coat] = COAT
    drawn[dress] = DRESS
    return drawn


def probabilities(sure: float = 0.96) -> np.ndarray:
    """What a model says that sees a coat and a dress where they are: (3, 60, 40)."""
    seen = np.zeros((60, 40), int)
    seen[:10], seen[10:20] = 1, 2
    return np.where(seen == np.arange(3)[:, None, None], sure, (1 - sure) / 2).astype(np.float32)


def judged(sha256: str, drawn: np.ndarray, sure: float = 0.96, judge: str = "folds") -> JudgedPhoto:
    return JudgedPhoto(sha256, drawn, probabilities(sure), LABELS, judge)


def right(count: int = 20) -> Iterator[JudgedPhoto]:
    """Photos whose masks are right."""
    return (judged(f"right-{number}", mask()) for number in range(count))


def find(*photos: JudgedPhoto, max_issues: int = 50) -> list[LabelIssue]:
    return find_label_issues([*right(), *photos], max_issues)


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (mask(slice(0, 0), slice(0, 80)), r"drawn as dress, the model sees coat \(16\.\d%"),
        (mask(slice(0, 40), slice(0, 0)), r"the model sees dress where nothing is drawn \(16"),
        (mask(slice(0, 40), slice(40, 120)), r"the model sees nothing where dress is drawn \(16"),
    ],
)
def test_a_wrong_mask_is_found_with_its_reason(drawn: np.ndarray, reason: str) -> None:
    [issue] = find(judged("wrong", drawn))

    assert issue.sha256 == "wrong"
    assert 0 < issue.score <= 1
    assert re.match(reason, issue.reason)


def test_right_masks_and_edges_are_not_shown() -> None:
    rough = mask()
    rough[76:80] = 0  # a sliver along the whole edge
    rough[30:34, 20:25] = 0  # a slip of the brush
    assert find(judged("rough", rough)) == []


def test_a_missing_dress_stands_far_above_a_small_slip() -> None:
    slip = mask()
    slip[50:70, 60:80] = 0  # a hundredth of the photo

    worse, small = find(judged("slip", slip), judged("missing", mask(dress=slice(0, 0))))

    assert (worse.sha256, small.sha256) == ("missing", "slip")
    assert worse.score > 3 * small.score


def test_what_the_model_is_less_sure_of_stands_lower() -> None:
    drawn = mask(dress=slice(0, 0))
    assert [issue.sha256 for issue in find(judged("unsure", drawn, 0.5), judged("sure", drawn))] == ["sure", "unsure"]


def test_what_the_model_often_confuses_stands_lower() -> None:
    """Ten photos show that it takes dresses for coats; that one coat is not drawn at all is another matter."""
    confused = [judged(f"confused-{number}", mask(slice(0, 0), slice(0, 80))) for number in range(10)]
    missing = judged("missing", mask(coat=slice(0, 0)))

    issues = find(*confused, missing)

    assert issues[0].sha256 == "missing"
    assert issues[0].score > 3 * issues[1].score


def test_how_often_labels_are_confused_is_counted_by_model() -> None:
    confused = [judged(f"confused-{number}", mask(slice(0, 0), slice(0, 80))) for number in range(10)]
    others = [judged(f"other-{number}", mask(), judge="clothing:v3") for number in range(20)]
    of_other = judged("wrong", mask(slice(0, 0), slice(0, 80)), judge="clothing:v3")

    assert find(*confused, *others, of_other)[0].sha256 == "wrong"


def test_pieces_that_do_not_touch_do_not_add_up() -> None:
    apart, together = mask(), mask()
    for top in (42, 62):
        apart[top : top + 12, :80] = 0
    together[42:66, :80] = 0

    issues = find(judged("apart", apart), judged("together", together))

    assert [issue.sha256 for issue in issues] == ["together", "apart"]
    assert issues[0].score > 1.2 * issues[1].score


def test_the_worst_stand_first_and_no_more_than_asked() -> None:
    photos = [judged(name, mask(dress=slice(40, rows))) for name, rows in (("a", 70), ("b", 40), ("c", 55))]

    assert [issue.sha256 for issue in find(*photos, max_issues=2)] == ["b", "c"]


@pytest.mark.parametrize("value", [12, IGNORE])
def test_of_labels_that_the_model_does_not_know_and_nobody_could_name_nothing_is_said(value: int) -> None:
    drawn = mask()
    drawn[drawn == DRESS] = value
    assert find(judged("a", drawn)) == []


def test_what_nobody_could_name_counts_nowhere() -> None:
    """The shares are of the pixels that somebody named."""
    drawn = mask(dress=slice(0, 0))
    drawn[120:] = IGNORE
    [issue] = find(judged("a", drawn))
    assert re.search(r"\(3[23]\.\d% of the photo\)", issue.reason)


def test_a_photo_on_which_nobody_could_name_anything_says_nothing() -> None:
    assert find(judged("a", np.full((240, 160), IGNORE, np.uint8))) == []
