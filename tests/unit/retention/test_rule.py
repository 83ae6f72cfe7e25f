"""What a rule keeps, for any items, dates and uses."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.params import RetentionParams, RetentionRule
from pipelines.retention.rule import Choice, Item, choose, describe

NOW = datetime(2036, 6, 30, 12, tzinfo=UTC)
DATES = st.datetimes(datetime(2026, 1, 1), datetime(2036, 6, 30), timezones=st.just(UTC))
ITEMS = st.lists(DATES, max_size=30).map(lambda dates: [Item(f"v{n}", date) for n, date in enumerate(dates)])
RULES = st.builds(
    lambda newest, monthly, days: RetentionRule(keep_newest=newest, keep_monthly=monthly, keep_days=days),
    st.integers(1, 40), st.booleans(), st.none() | st.floats(0, 4000),
)  # fmt: skip
USED = st.sets(st.integers(0, 29)).map(lambda numbers: {f"v{number}": "a model needs it" for number in numbers})


@given(ITEMS, RULES, USED)
def test_each_item_stays_or_goes_and_the_newest_and_used_ones_stay(
    items: list[Item], rule: RetentionRule, used: dict[str, str]
) -> None:
    choice = choose(items, rule, used, NOW)
    assert sorted(choice.stay + choice.go) == sorted(item.name for item in items)
    assert not items or items[-1].name in choice.stay
    assert not used.keys() & set(choice.go)
    assert choice.spared.keys() <= used.keys() & set(choice.stay)


@given(ITEMS, RULES, USED)
def test_a_larger_number_and_more_clauses_let_go_no_more(
    items: list[Item], rule: RetentionRule, used: dict[str, str]
) -> None:
    assert rule.keep_newest is not None
    go = set(choose(items, rule, used, NOW).go)
    for wider in (
        {"keep_newest": rule.keep_newest + 1}, {"keep_monthly": True}, {"keep_days": (rule.keep_days or 0) + 30},
    ):  # fmt: skip
        assert set(choose(items, rule.model_copy(update=wider), used, NOW).go) <= go
    assert set(choose(items, rule, {}, NOW).go) >= go
    assert choose(items, "all", used, NOW).go == ()


@given(ITEMS, RULES, USED)
def test_what_stays_stays_when_the_rule_is_applied_again(
    items: list[Item], rule: RetentionRule, used: dict[str, str]
) -> None:
    stay = choose(items, rule, used, NOW).stay
    assert choose([item for item in items if item.name in stay], rule, used, NOW).go == ()


@given(ITEMS, RULES, st.data())
def test_uses_outside_the_items_change_nothing(items: list[Item], rule: RetentionRule, data: st.DataObject) -> None:
    unknown = data.draw(st.dictionaries(st.sampled_from(["x", "v99"]), st.just("it is elsewhere")))
    assert choose(items, rule, unknown, NOW) == choose(items, rule, {}, NOW)


def test_the_last_of_each_month_is_the_last_by_order() -> None:
    days = [datetime(2036, 4, 1, tzinfo=UTC), datetime(2036, 4, 30, 23, tzinfo=UTC), datetime(2036, 5, 9, tzinfo=UTC)]
    items = [Item(str(day.day), day) for day in days] + [Item("newest", datetime(2036, 6, 1, tzinfo=UTC))]
    assert choose(items, RetentionRule(keep_monthly=True), {}, NOW).go == ("1",)


def test_order_and_not_the_clock_says_which_is_newest() -> None:
    items = [Item("v1", NOW), Item("v2", NOW - timedelta(days=900))]
    assert choose(items, RetentionRule(keep_newest=1), {}, NOW) == Choice(("v2",), ("v1",), {})


def test_of_some_kinds_even_the_newest_goes() -> None:
    items = [Item("log", NOW - timedelta(days=9))]
    assert choose(items, RetentionRule(keep_days=8), {}, NOW, newest_stays=False).go == ("log",)


def test_rules_in_words() -> None:
    rule = RetentionRule(keep_newest=20, keep_monthly=True, keep_days=90)
    assert (describe("all"), describe(rule)) == ("all", "the newest 20, the last of each month, 90 days")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "say what stays"), ({"keep_newest": 0}, "greater than or equal to 1"), ("none", "is no rule; write all"),
        (20, "is no rule; write all"), ({"keep_weekly": True}, "Extra inputs"), ({"keep_days": -1}, "greater than"),
        ({"keep_monthly": False}, "say what stays"), ({"keep_days": "soon"}, "valid number"),
    ],
)  # fmt: skip
def test_a_rule_that_says_nothing_is_refused_with_its_place(value: object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as error:
        RetentionParams.model_validate({"versions": value})
    assert error.value.errors()[0]["loc"][0] == "versions"


def test_without_a_section_nothing_that_people_need_goes() -> None:
    defaults = RetentionParams()
    assert (defaults.versions, defaults.models, defaults.remote) == ("all", "all", "all")
