"""How much of the disk is free, and when it ends."""

import shutil
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.local_stack.disk import Disk, measure, record
from pipelines.settings import Settings

Usage = namedtuple("Usage", "total used free")
START = datetime(2026, 3, 1, tzinfo=UTC)
GB = 10**9


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, var=tmp_path / "var")


def use(monkeypatch: pytest.MonkeyPatch, used: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GB, int(used * GB), int((100 - used) * GB)))


def test_the_real_disk_has_a_size(settings: Settings) -> None:
    disk = measure(settings)
    assert 0 < disk.free < disk.total
    assert disk.per_day is None
    assert list(settings.var.iterdir()) == [], "to measure writes nothing"


def test_the_pace_of_some_days_tells_when_it_is_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(10):
        use(monkeypatch, 40 + 2 * day)
        disk = record(settings, START + timedelta(days=day))
        assert (disk.days_left is None) == (day < 3)
    assert disk.days_left == pytest.approx((100 - 58) / 2)
    assert str(disk) == "42.0 GB of 100.0 GB free (42%); full in 21 days at the present pace"
    assert not disk.is_low
    assert measure(settings, START + timedelta(days=9)) == disk


def test_what_was_freed_long_ago_does_not_count(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for day, used in enumerate([90] * 5 + [50] * 40):
        use(monkeypatch, used)
        disk = record(settings, START + timedelta(days=day))
    assert disk.days_left is None or disk.days_left > 10_000
    assert (settings.var / "disk.json").read_text(encoding="utf-8").count("2026") == 31


@pytest.mark.parametrize(
    ("free", "per_day", "is_low"),
    [(14, None, True), (16, None, False), (50, 5, True), (50, 2, False), (50, -3, False), (50, 0, False)],
)
def test_it_is_low_by_share_or_by_days(free: float, per_day: float | None, is_low: bool) -> None:
    assert Disk(100 * GB, int(free * GB), None if per_day is None else per_day * GB).is_low == is_low


@pytest.mark.parametrize("data", [b"", b"[]", b'{"yesterday": 1}', b'{"2026-01-01T00:00:00+00:00": "x"}'])
def test_damaged_samples_are_no_error(settings: Settings, data: bytes) -> None:
    settings.var.mkdir()
    (settings.var / "disk.json").write_bytes(data)
    assert measure(settings).per_day is None
    record(settings)
