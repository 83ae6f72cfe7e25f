"""What labelers note is compared with what is stored: what is lost, differs, is doubled, or was served twice."""

from typing import Any

import numpy as np
import pytest

from benchmarks._journal import Faults, Hold, Journal, Submitted, compare, content_of, served_twice
from pipelines.labelstudio.brush_rle import mask_to_rle

MASK = np.arange(12).reshape(3, 4) > 5


def region(region_id: str = "a", label: str = "coat", mask: np.ndarray = MASK) -> dict[str, Any]:
    value = {"format": "rle", "rle": mask_to_rle(mask), "brushlabels": [label]}
    return {"id": region_id, "type": "brushlabels", "original_height": 3, "original_width": 4, "value": value}


def text(words: str) -> dict[str, Any]:
    return {"id": words, "type": "textarea", "from_name": "skip_reason", "value": {"text": [words]}}


def submitted(*regions: dict[str, Any], person: str = "ann", skipped: bool = False) -> Submitted:
    return Submitted(person, content_of(regions, 128), skipped)


@pytest.mark.parametrize(
    ("stored", "faults"),
    [
        ([submitted(region())], Faults(0, 0, 0)),
        ([], Faults(1, 0, 0)),
        ([submitted(region(), person="bob")], Faults(1, 0, 1)),
        ([submitted(region()), submitted(region())], Faults(0, 0, 1)),
        ([submitted(region()), submitted(region(), person="bob")], Faults(0, 0, 1)),
        ([submitted(region(mask=~MASK))], Faults(0, 1, 0)),
        ([submitted(region(label="hat"))], Faults(0, 1, 0)),
        ([submitted(region(), region("b"))], Faults(0, 1, 0)),
        ([submitted()], Faults(0, 1, 0)),
        ([submitted(region(), skipped=True)], Faults(0, 1, 0)),
        ([submitted(region(), text("unreadable"))], Faults(0, 1, 0)),
    ],
)
def test_what_is_stored_is_compared_with_what_was_submitted(stored: list[Submitted], faults: Faults) -> None:
    assert compare({7: submitted(region())}, {7: stored}) == faults


def test_annotations_that_nobody_knows_of_are_doubled() -> None:
    assert compare({}, {7: [submitted(region())]}) == Faults(0, 0, 1)


def test_other_bytes_of_the_same_mask_are_the_same() -> None:
    other = region()
    soft = np.where(MASK, 200, 40).astype(np.uint8)  # antialiased, as the editor encodes strokes
    other["value"] = {**other["value"], "rle": _literal_rle(soft)}

    assert content_of([other], 128) == content_of([region()], 128)


def _literal_rle(alpha: np.ndarray) -> list[int]:
    """Encode an alpha channel as one record of literals; see `pipelines.labelstudio.brush_rle`."""
    values = np.repeat(alpha.ravel(), 4)
    bits = f"{values.size:032b}" + f"{7:05b}" + "0010001101111111" + "010" + f"{values.size - 1:08b}"
    bits += "".join(f"{int(value):08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def test_one_task_in_two_hands_is_counted_once_per_pair() -> None:
    ann, bob, after = Hold(1, "ann", 0, 10), Hold(1, "bob", 5, 6), Hold(1, "eve", 10, 12)

    assert served_twice([ann, bob]) == 1
    assert served_twice([ann, after, Hold(1, "ann", 3, 4), Hold(2, "bob", 0, 10)]) == 0


def test_a_hold_ends_when_the_task_is_sent_the_next_is_served_or_all_go_home() -> None:
    journal = Journal()
    journal.served(1, "ann")
    journal.sending("ann")
    journal.sending("ann")
    journal.served(2, "ann")
    journal.served(3, "ann")
    journal.end()

    assert [(hold.task, hold.person) for hold in journal.holds] == [(1, "ann"), (2, "ann"), (3, "ann")]
    assert all(hold.begun <= hold.ended for hold in journal.holds)


def test_only_what_succeeded_is_timed() -> None:
    journal = Journal()
    with journal.timed("submit"):
        pass
    with pytest.raises(ValueError, match="no answer"), journal.timed("submit"):
        raise ValueError("no answer")

    assert len(journal.seconds["submit"]) == 1
