"""The queue: filled up to its length, its random share kept, the least confident first, the same choice every time."""

from collections import Counter
from dataclasses import replace

import pytest
from google.cloud.storage import Client
from hypothesis import given
from hypothesis import strategies as st

from pipelines.gcs.client import ensure_bucket
from pipelines.params import Params, PrelabelParams
from pipelines.photos.decode import sha256_hex
from pipelines.prelabel.strategies import (
    ScoreCache,
    ScoreCacheFile,
    chance,
    describe,
    is_random,
    next_tasks,
    reason_of,
    to_score,
)
from pipelines.records import ImageRef, Task


@pytest.fixture
def ten_ahead(params: Params) -> PrelabelParams:
    return params.prelabel.model_copy(update={"strategy": "uncertainty", "ahead": 10, "random_share": 0.2, "pool": 100})


def task(number: int, *versions: str, generation: int = 1) -> Task:
    image = ImageRef(f"gs://a/{number}.jpg", generation, sha256_hex(str(number).encode()), 4, 6)
    return Task(number, image, prediction_versions=versions)


def tasks(count: int, *versions: str) -> list[Task]:
    return [task(number, *versions) for number in range(count)]


def scored(some: list[Task]) -> ScoreCache:
    """Return a score for each photo; the higher its number, the lower the score."""
    return ScoreCache({t.image.sha256: 0.9 - t.id / 1000 for t in some})


def test_the_least_certain_come_first_beside_a_share_that_chance_chose(ten_ahead: PrelabelParams) -> None:
    everything = tasks(200)

    chosen = next_tasks(everything, scored(everything), ten_ahead)

    by_chance = [t for t in chosen if is_random(t, 0.2)]
    others = [t.id for t in chosen if not is_random(t, 0.2)]
    assert (len(by_chance), len(others)) == (2, 8)
    assert others == sorted((t.id for t in everything if not is_random(t, 0.2)), reverse=True)[:8]


def test_what_waits_already_counts_and_each_part_is_filled_up_by_itself(ten_ahead: PrelabelParams) -> None:
    everything = tasks(200)
    first = next_tasks(everything, scored(everything), ten_ahead)
    taken = {t.id for t in first if is_random(t, 0.2)} | {first[-1].id}  # somebody labelled these
    waiting = [task(t.id, "v1") if t in first else t for t in everything if t.id not in taken]

    second = next_tasks(waiting, scored(everything), ten_ahead)

    assert Counter(is_random(t, 0.2) for t in second) == {True: 2, False: 1}
    assert not {t.id for t in second} & {t.id for t in first}


def test_a_full_queue_stays_as_it_is_after_a_promotion(ten_ahead: PrelabelParams) -> None:
    waiting = [*tasks(10, "v1"), *(task(number) for number in range(10, 200))]

    assert next_tasks(waiting, scored(waiting), ten_ahead) == []


@given(st.integers(0, 40), st.floats(0, 1))
def test_the_queue_is_as_long_as_it_can_be(count: int, share: float) -> None:
    params = PrelabelParams(
        strategy="uncertainty", ahead=10, random_share=share, pool=100, batch_size=1, min_region_share=0, cold_start={}
    )  # fmt: skip
    everything = tasks(count)

    chosen = next_tasks(everything, ScoreCache(), params)

    assert len(chosen) == len({t.id for t in chosen}) == min(10, count)


def test_photos_without_a_score_come_after_those_with_one(ten_ahead: PrelabelParams) -> None:
    everything = tasks(100)
    known = [t for t in everything if not is_random(t, 0.2)][:8]

    chosen = next_tasks(everything, scored(known), ten_ahead)

    assert {t.id for t in chosen if not is_random(t, 0.2)} == {t.id for t in known}


def test_a_photo_that_cannot_be_predicted_takes_nobodys_place(
    ten_ahead: PrelabelParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = tasks(60)
    cache = scored(everything)
    bad = next_tasks(everything, cache, ten_ahead)
    for t in bad:
        cache.record_failure(t)

    chosen = next_tasks(everything, cache, ten_ahead)
    assert (len(chosen), {t.id for t in chosen} & {t.id for t in bad}) == (10, set())

    again = [task(t.id, generation=2) for t in bad]  # uploaded once more
    assert [t.id for t in next_tasks(again, cache, ten_ahead)]
    cache.failed_at = dict.fromkeys(cache.failed_at, 0.0)  # hours ago
    assert {t.id for t in next_tasks(everything, cache, ten_ahead)} == {t.id for t in bad}


def test_only_the_pool_is_scored_and_each_photo_once(ten_ahead: PrelabelParams) -> None:
    everything, small = tasks(200), ten_ahead.model_copy(update={"pool": 20})

    asked = to_score(everything, ScoreCache(), small)

    assert len(asked) == 20
    assert not any(is_random(t, 0.2) for t in asked)
    assert to_score(everything, scored(asked), small) == []


def test_the_ledger_is_kept_for_each_model(bucket_client: Client) -> None:
    ensure_bucket(bucket_client, "ledgers")
    cache = ScoreCache({"ab": 0.123456789}, {"cd#7": 5.0})
    file = ScoreCacheFile(bucket_client, "ledgers", "clothing:v3")
    file.write(cache)

    assert file.read() == ScoreCache({"ab": 0.12346}, {"cd#7": 5.0})
    assert ScoreCacheFile(bucket_client, "ledgers", "clothing:v4").read() == ScoreCache()


def test_blind_photos_come_by_chance_and_are_not_scored(ten_ahead: PrelabelParams) -> None:
    everything = tasks(200)
    blind = {t.id for t in everything[:100]}

    assert not {t.id for t in to_score(everything, ScoreCache(), ten_ahead, blind)} & blind
    chosen = next_tasks(everything, scored(everything), ten_ahead, blind)
    assert len(chosen) == 10
    assert [t.id for t in chosen if t.id in blind] != sorted(blind)[-5:], "scores do not matter"
    cache = scored(everything)
    cache.record_failure(chosen[0])
    assert chosen[0] in next_tasks(everything, cache, ten_ahead, blind), "nothing has to be predicted"


@pytest.mark.parametrize("first", ["blind", "others", "by chance"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.8])
def test_people_are_given_blind_photos_in_their_share_whatever_comes_first(
    ten_ahead: PrelabelParams, share: float, first: str
) -> None:
    """Four people's pace: some photos are taken between two runs, in the worst order for the blind ones or in none."""
    everything = {t.id: t for t in tasks(1500)}
    blind = {number for number in everything if chance("test", everything[number]) < share}
    cache, queue, given = scored(list(everything.values())), dict[int, Task](), list[bool]()
    for run in range(120):
        current = [replace(t, prediction_versions=("v1",)) if t.id in queue else t for t in everything.values()]
        queue |= {t.id: t for t in next_tasks(current, cache, ten_ahead, blind)}
        rank = {"blind": lambda t: t not in blind, "others": lambda t: t in blind, "by chance": hash}[first]
        for number in sorted(queue, key=lambda t: (rank(t), t))[: 1 + run % 7]:
            given.append(number in blind)
            del queue[number], everything[number]

    spread = 4 * (share * (1 - share) / len(given)) ** 0.5
    assert sum(given) / len(given) == pytest.approx(share, abs=spread + ten_ahead.ahead / len(given))


@given(st.integers(0, 40), st.floats(0, 1), st.floats(0, 1))
def test_the_queue_is_as_long_as_it_can_be_with_blind_photos_too(count: int, share: float, blind_share: float) -> None:
    params = PrelabelParams(
        strategy="uncertainty", ahead=10, random_share=share, pool=100, batch_size=1, min_region_share=0, cold_start={}
    )  # fmt: skip
    everything = tasks(count)

    chosen = next_tasks(everything, ScoreCache(), params, {t.id for t in everything if t.id < count * blind_share})

    assert len(chosen) == len({t.id for t in chosen}) == min(10, count)


def test_a_photo_says_what_it_was_chosen_for(ten_ahead: PrelabelParams) -> None:
    for photo in tasks(40):
        assert reason_of(photo, ten_ahead) == ("random" if is_random(photo, 0.2) else "uncertain")


def test_by_chance_the_model_has_no_say(ten_ahead: PrelabelParams) -> None:
    by_chance = ten_ahead.model_copy(update={"strategy": "chance"})
    everything = tasks(200)

    chosen = next_tasks(everything, scored(everything), by_chance)

    assert [t.id for t in chosen] == [t.id for t in sorted(everything, key=lambda t: chance("order", t))[:10]]
    assert to_score(everything, ScoreCache(), by_chance) == [], "so nothing is predicted for the choice"
    assert {reason_of(t, by_chance) for t in everything} == {"random"}
    waiting = [task(t.id, "v1") if t in chosen[3:] else t for t in everything if t not in chosen[:3]]
    assert len(next_tasks(waiting, ScoreCache(), by_chance)) == 3


def test_each_strategy_says_what_is_known_of_it(ten_ahead: PrelabelParams) -> None:
    assert describe(ten_ahead) == (
        "10 photos ahead, least certain first, 20% by chance: on real photos this order saved no time"
    )
    by_chance = ten_ahead.model_copy(update={"strategy": "chance"})
    assert describe(by_chance) == "10 photos ahead, all by chance: no other order was found to save people time"
