"""Whether the seconds that masks are said to save are true, on archives of simulated people whose savings are known.

People have a pace, learn, and take breaks; photos have garments and families that resemble each other; models save
time, none, or cost some. The peer is what a region takes on photos without masks, whenever these were labelled, times
the regions of those with masks. Coverage is in per cent of intervals; «in all» is the sum over an archive's models.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import Row
from pipelines.params import Params, load_params
from pipelines.prelabel.strategies import chance_of
from pipelines.reports.effort import Interval, measure_effort
from pipelines.settings import PROJECT_ROOT

ARCHIVES = 200
_LOOK, _DRAW, _ACCEPT, _CORRECT, _DELETE = 8.0, 22.0, 2.0, 9.0, 4.0  # seconds of an average person without practice
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Archive:
    """A manifest, the seconds per photo that each version's masks truly saved on its photos, and how many these are."""

    manifest: pd.DataFrame
    saved: Mapping[str, float]
    photos: Mapping[str, int]


def simulate_archive(
    seed: int, photos: int = 0, good: tuple[float, ...] = (), blind_share: float = 0.3, by_photo: bool = False,
    silent_share: float = 0.0, noise: float = 0.3, imported: int = 40,
) -> Archive:  # fmt: skip
    """Return an archive of so many photos (0: 150 to 600) whose versions' masks are as good as `good` says, one each.

    Good masks (1) are accepted, or corrected; bad ones (below 0) are deleted and drawn again. Without `good` there are
    two or three versions that save a lot, next to nothing, or less than nothing. A fifth of the photos is drawn before
    the first version. Families are blind, or single photos of all families once the test split is full (`by_photo`).
    Versions propose nothing on a `silent_share` of photos, the hardest ones. `noise` is the standard deviation of the
    logarithm of a photo's seconds; families vary by as much again. So many photos are `imported` besides.
    """
    rng = np.random.default_rng(seed)
    photos = photos or int(rng.integers(150, 601))
    good = good or tuple(rng.permutation([0.8, 0.12, -0.8])[: rng.integers(2, 4)])
    table = _photos(rng, photos, blind_share, noise)
    if by_photo:
        table["blind"] = [chance_of("control", photo) < blind_share for photo in table["sha256"]]
    number = np.maximum(0, (np.arange(photos) / photos * 1.25 - 0.25) * len(good) + 1).astype(int)
    _share_out(rng, table)
    alone = _seconds(rng, table, np.zeros(photos), noise)
    aided = _seconds(rng, table, np.array([0.0, *good])[number], noise)
    shown = (number > 0) & ~table["blind"] & (table["hard"].rank(pct=True) <= 1 - silent_share)
    table["version"] = np.where(shown, [f"clothing:v{version}" for version in number], "")
    table["seconds"] = np.where(shown, aided, alone)
    manifest = _manifest(rng, table).assign(test_full=by_photo, **({"split": "train"} if by_photo else {}))
    names = sorted(set(table["version"]) - {""})
    return Archive(
        pd.concat([manifest, _imported(rng, manifest, imported)], ignore_index=True),
        {name: float((alone - aided)[table["version"] == name].mean()) for name in names},
        {name: int((table["version"] == name).sum()) for name in names},
    )


def _photos(rng: np.random.Generator, count: int, blind_share: float, noise: float) -> pd.DataFrame:
    """Make photos of families of 2 to 8, in the order in which people draw them: a family's nearly together."""
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        of_family = {"family": f"family {len(rows):05d}", "blind": rng.random() < blind_share}
        place, hard, usual = rng.random(), rng.normal(0, noise), rng.uniform(1.5, 6)
        rows += [
            {**of_family, "place": place + rng.normal(0, 0.01), "hard": np.exp(hard + rng.normal(0, noise * 0.7)),
             "garments": int(rng.poisson(usual))}
            for _ in range(rng.integers(2, 9))
        ]  # fmt: skip
    table = pd.DataFrame(rows[:count]).sort_values("place", ignore_index=True)
    return table.assign(sha256=[f"{place:064x}" for place in range(count)])


def _share_out(rng: np.random.Generator, table: pd.DataFrame) -> None:
    """Add who draws each photo, 3 to 6 people, and how much slower they are than the average beginner (`pace`)."""
    people = int(rng.integers(3, 7))
    pace, power = np.exp(rng.normal(0, 0.3, people)), rng.uniform(0.05, 0.25, people)
    person = rng.choice(people, len(table), p=rng.dirichlet(np.full(people, 5.0)))
    done = pd.Series(person).groupby(person).cumcount().to_numpy()
    table["person"], table["pace"] = person, pace[person] * (1 + done) ** -power[person]


def _seconds(rng: np.random.Generator, table: pd.DataFrame, good: np.ndarray, noise: float) -> np.ndarray:
    """Return what photos take with masks that are this good, without masks where that is 0: (N,) seconds."""
    garments = table["garments"].to_numpy()
    accepted = rng.binomial(garments, np.clip(good, 0, 1) * 0.8)
    corrected = rng.binomial(garments - accepted, np.clip(good, 0, 1) * 0.6)
    wrong = np.where(good == 0, 0, rng.binomial(garments, np.clip(0.4 - good, 0, 1)))
    regions = (
        accepted * _ACCEPT + corrected * _CORRECT + (garments - accepted - corrected) * _DRAW + wrong * _DELETE * 2
    )
    noisy = np.exp(rng.normal(0, noise * 0.7, len(table)))
    return np.asarray((_LOOK + regions) * table["pace"].to_numpy() * table["hard"].to_numpy() * noisy)


def _manifest(rng: np.random.Generator, table: pd.DataFrame) -> pd.DataFrame:
    """Write the photos as a manifest; some times hold a break or are lost, and some photos two people drew."""
    seconds = table["seconds"] + np.where(rng.random(len(table)) < 0.02, rng.uniform(600, 6000, len(table)), 0)
    seconds[rng.random(len(table)) < 0.03] = 0
    several = (rng.random(len(table)) < 0.04).tolist()
    people = [
        ["labeler-0"] * second + [f"labeler-{person}"] for person, second in zip(table["person"], several, strict=True)
    ]
    moments = [_START + timedelta(minutes=10 * place) for place in range(len(table))]
    return pd.DataFrame({
        "sha256": table["sha256"], "family": table["family"], "split": np.where(table["blind"], "test", "train"),
        "blind": table["version"] == "", "prediction_version": table["version"],
        "lead_time_s": np.where(several, 2 * seconds, seconds),
        "annotators": pd.Series(people),
        "annotations": pd.Series([[str(place)] * (1 + two) for place, two in enumerate(several)]),
        "updated_at": [moment.isoformat() for moment in moments], "regions_manual": table["garments"],
        "label_pixels": [
            json.dumps({f"garment {number}": 9 for number in range(count)}) for count in table["garments"]
        ],
    })  # fmt: skip


def _imported(rng: np.random.Generator, manifest: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return photos whose masks came from elsewhere at some moment: no time, no model, their regions as if drawn."""
    rows = manifest.sample(count, replace=True, random_state=rng, ignore_index=True)
    return rows.assign(
        sha256=[f"{place:063x}i" for place in range(count)], family=[f"imported {place}" for place in range(count)],
        blind=True, prediction_version="", lead_time_s=0.0, updated_at=rng.choice(manifest["updated_at"]),
        annotators=pd.Series([["owner"]] * count), annotations=pd.Series([[str(place)] for place in range(count)]),
    )  # fmt: skip


def errors_of(archive: Archive, params: Params) -> Iterator[tuple[str, float, Interval]]:
    """Yield each version's truth and estimate in seconds per photo, and those of all versions in hours as «in all»."""
    report = measure_effort(archive.manifest, params)
    told = {name: usage.saving.per_photo for name, usage in report.by_model.items() if usage.saving.per_photo}
    yield from ((name, archive.saved[name], interval) for name, interval in told.items())
    if report.in_all.hours:
        yield "in all", sum(archive.saved[name] * archive.photos[name] for name in told) / 3600, report.in_all.hours


def by_pace_of_regions(manifest: pd.DataFrame) -> dict[str, float]:
    """Return the seconds saved per photo by the pace of regions drawn without masks at any time.

    The median over the photos with a version's masks of (seconds a region takes) times (regions) less (the photo's
    seconds), where a region's seconds are the median over all photos without masks.
    """
    table = manifest.assign(regions=manifest["regions_manual"])
    by_hand = table[(table["prediction_version"] == "") & (table["regions"] > 0)]
    pace = (by_hand["lead_time_s"] / by_hand["regions"]).median()
    shown = table[table["prediction_version"] != ""]
    saved = (pace * shown["regions"] - shown["lead_time_s"]).groupby(shown["prediction_version"]).median()
    return {str(name): float(seconds) for name, seconds in saved.items()}


def run(archives: int = ARCHIVES) -> list[Row]:
    """Measure coverage and error of the estimates over simulated archives."""
    table = _compare(archives)
    per_version, in_all = table[table["one"]], table[~table["one"]]
    imported = _compare(archives // 4, photos=200, good=(0.12, 0.12), imported=400)
    return [
        *_rows("per photo", per_version, "s", archives),
        *_rows("in all", in_all, "h", archives),
        _mean_error("twice as many imported photos", imported[imported["one"]], archives // 4),
    ]


def _compare(archives: int, **options: Any) -> pd.DataFrame:
    """Return a row per version of each archive, and one for all of them (not `one`), with the errors of both ways."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    rows: list[dict[str, Any]] = []
    for seed in range(archives):
        archive = simulate_archive(seed, **options)
        peer = by_pace_of_regions(archive.manifest)
        peer["in all"] = sum(peer[name] * archive.photos[name] for name in archive.photos) / 3600
        for name, truth, interval in errors_of(archive, params):
            rows.append({
                "one": name != "in all", "covered": interval.low <= truth <= interval.high,
                "error": interval.value - truth, "peer": peer[name] - truth, "width": interval.high - interval.low,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _rows(what: str, table: pd.DataFrame, unit: str, rounds: int) -> Iterator[Row]:
    error, peer = (float(np.sqrt((table[column] ** 2).mean())) for column in ("error", "peer"))
    yield Row(f"truth within the 95 % interval, {what}", 100 * table["covered"].mean(), None, None, "%", rounds)
    yield Row(f"median width of the interval, {what}", table["width"].median(), None, None, unit, rounds)
    yield _mean_error(what, table, rounds, unit)
    yield Row(f"root mean square error, {what}", error, peer, peer / error, unit, rounds)


def _mean_error(what: str, table: pd.DataFrame, rounds: int, unit: str = "s") -> Row:
    return Row(f"mean error, {what}", table["error"].mean(), table["peer"].mean(), None, unit, rounds)
