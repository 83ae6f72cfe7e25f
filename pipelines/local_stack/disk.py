"""Free space of the disk that holds the state, and when it ends at the pace of the last weeks."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from pipelines.fs import write_atomically
from pipelines.settings import Settings

_KEPT = timedelta(days=30)
_SHORTEST = timedelta(days=3)  # of samples that tell a pace
_LOW_SHARE, _LOW_DAYS = 0.15, 14


@dataclass(frozen=True)
class Disk:
    """A disk's size and free bytes, and by how many bytes a day its use grows; None while that is not known."""

    total: int
    free: int
    per_day: float | None = None

    @property
    def days_left(self) -> float | None:
        """Return in how many days it is full at this pace; None when it does not grow or that is not known."""
        return self.free / self.per_day if self.per_day and self.per_day > 0 else None

    @property
    def is_low(self) -> bool:
        """Return whether less than 15 % is free, or it is full within two weeks."""
        return self.free < _LOW_SHARE * self.total or (self.days_left or _LOW_DAYS) < _LOW_DAYS

    def __str__(self) -> str:
        """Return both in one line."""
        pace = f"; full in {self.days_left:,.0f} days at the present pace" if self.days_left else ""
        return f"{decimal(self.free)} of {decimal(self.total)} free ({self.free / max(1, self.total):.0%}){pace}"


def measure(settings: Settings, now: datetime | None = None) -> Disk:
    """Return the disk of the state folder, with the pace that earlier samples tell; nothing is written."""
    return _disk(settings, _samples(_path(settings)), now or datetime.now(UTC))


def record(settings: Settings, now: datetime | None = None) -> Disk:
    """Measure the disk and keep the result as a sample, for a month."""
    now, path = now or datetime.now(UTC), _path(settings)
    samples = {at: used for at, used in _samples(path).items() if now - at <= _KEPT}
    disk = _disk(settings, samples, now)
    samples[now] = disk.total - disk.free
    write_atomically(path, json.dumps({at.isoformat(): used for at, used in samples.items()}).encode())
    return disk


def _disk(settings: Settings, samples: dict[datetime, int], now: datetime) -> Disk:
    settings.var.mkdir(parents=True, exist_ok=True)
    usage = shutil.disk_usage(settings.var)
    return Disk(usage.total, usage.free, _per_day(samples | {now: usage.total - usage.free}))


def _per_day(samples: dict[datetime, int]) -> float | None:
    """Return the slope of a line through the samples of the last month, in bytes a day."""
    newest = max(samples)
    recent = {at: used for at, used in samples.items() if newest - at <= _KEPT}
    if newest - min(recent) < _SHORTEST:
        return None
    days = [(at - newest) / timedelta(days=1) for at in recent]
    return float(np.polyfit(days, list(recent.values()), 1)[0])


def _path(settings: Settings) -> Path:
    return settings.var / "disk.json"


def _samples(path: Path) -> dict[datetime, int]:
    """Return used bytes by time; nothing when the file is missing or damaged, as it is only a help."""
    try:
        return {datetime.fromisoformat(at): int(used) for at, used in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
