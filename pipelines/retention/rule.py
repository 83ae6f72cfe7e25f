"""Which of several items a rule keeps: a pure function of their order, their dates and what is in use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.params import KEEP_ALL, RetentionRule

Rule = RetentionRule | str  # a text is `KEEP_ALL`


@dataclass(frozen=True)
class Item:
    """Something that a rule may let go: its name, which no other item of its kind has, and when it was made."""

    name: str
    at: datetime


@dataclass(frozen=True)
class Choice:
    """Which items stay and which go, oldest first; `spared` has the reason for those that only their use keeps."""

    stay: tuple[str, ...]
    go: tuple[str, ...]
    spared: Mapping[str, str]


def choose(
    items: Sequence[Item], rule: Rule, in_use: Mapping[str, str], now: datetime, *, newest_stays: bool = True
) -> Choice:
    """Decide which items stay: those of the rule, those in use, and the newest.

    `items` come oldest first; this order, not their dates, says which are the newest. `in_use` has the reason why an
    item must stay. Months are those of UTC.
    """
    by_rule = _kept(items, rule, now) | ({items[-1].name} if items and newest_stays else set())
    spared = {item.name: in_use[item.name] for item in items if item.name in in_use and item.name not in by_rule}
    stay = tuple(item.name for item in items if item.name in by_rule or item.name in spared)
    return Choice(stay, tuple(item.name for item in items if item.name not in {*stay}), spared)


def describe(rule: Rule) -> str:
    """Return a rule in words."""
    if not isinstance(rule, RetentionRule):
        return "all"
    newest = f"the newest {rule.keep_newest}" if rule.keep_newest else ""
    monthly = "the last of each month" if rule.keep_monthly else ""
    days = "" if rule.keep_days is None else f"{rule.keep_days:g} days"
    return ", ".join(part for part in (newest, monthly, days) if part)


def _kept(items: Sequence[Item], rule: Rule, now: datetime) -> set[str]:
    """Return the names of the items that a rule keeps; each of its clauses keeps its own."""
    if not isinstance(rule, RetentionRule):
        assert rule == KEEP_ALL, "params.yaml allows no other text"
        return {item.name for item in items}
    kept = {item.name for item in items[-rule.keep_newest :]} if rule.keep_newest else set()
    if rule.keep_monthly:
        kept |= set({f"{item.at.astimezone(UTC):%Y-%m}": item.name for item in items}.values())  # the last one wins
    if rule.keep_days is not None:
        oldest = now - timedelta(days=rule.keep_days)
        kept |= {item.name for item in items if item.at > oldest}
    return kept
