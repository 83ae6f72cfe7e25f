"""How old the newest backup in a bucket is, so that nobody hears of a missing one on the day that it is needed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.filesize import decimal

from pipelines.gcs.backups import Backup, list_backups, newest_complete
from pipelines.gcs.client import connect
from pipelines.settings import Settings

_TOO_OLD = timedelta(hours=36)  # a timer makes one every night


@dataclass(frozen=True)
class BackupAge:
    """The newest complete backup below `place`, or None, at a moment."""

    place: str
    backup: Backup | None
    now: datetime

    @property
    def age(self) -> timedelta | None:
        """Return how long ago it began; None when there is none."""
        return self.now - self.backup.begun_at if self.backup else None

    @property
    def is_too_old(self) -> bool:
        """Return whether last night's is missing."""
        return self.age is None or self.age > _TOO_OLD

    def __str__(self) -> str:
        """Return address, size and age in one line."""
        if self.backup is None or self.age is None:
            return f"there is no complete backup at {self.place}"
        hours = self.age / timedelta(hours=1)
        ago = f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
        return f"{self.backup.folder}, {decimal(self.backup.size)}, {ago} ago"


def is_bucket(place: str) -> bool:
    """Return whether backups go to a bucket, and not to a file of the server or nowhere."""
    return place.startswith("gs://")


def newest_backup(settings: Settings, now: datetime | None = None) -> BackupAge:
    """Return the age of the newest complete backup at MASKLOOP_BACKUP; raise StorageError when it cannot be read."""
    backups = list_backups(connect(settings), settings.backup)
    return BackupAge(settings.backup, newest_complete(backups), now or datetime.now(UTC))
