"""How many photos the demo's rounds bring."""

import pytest

from pipelines.demo.run import sizes_of_rounds
from pipelines.errors import ConfigurationError


@pytest.mark.parametrize(
    ("count", "rounds", "sizes"), [(120, 2, [40, 80]), (40, 2, [20, 20]), (90, 1, [90]), (120, 3, [20, 40, 60])]
)
def test_later_rounds_bring_more_photos(count: int, rounds: int, sizes: list[int]) -> None:
    assert sizes_of_rounds(count, rounds, least=20) == sizes


def test_too_few_photos_are_refused_with_the_number_it_takes() -> None:
    with pytest.raises(ConfigurationError, match="at least 60 photos for 3 rounds"):
        sizes_of_rounds(59, 3, least=20)
