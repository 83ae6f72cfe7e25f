"""Who serves, who served before, and what MLflow says of it: promotions, rollbacks, pauses, and the gate's looks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import ModelError
from pipelines.models.registry import Registry
from pipelines.models.versions import DETECTABLE, GATE_FILE, SPLIT_CONFIG
from pipelines.records import ModelVersion

AddVersion = Callable[..., ModelVersion]


def description(registry: Registry, number: int) -> str:
    return str(registry.client.get_model_version("clothing", str(number)).description)


def run_name(registry: Registry, version: ModelVersion) -> str:
    return str(registry.client.get_run(version.run_id).info.run_name)


def note(registry: Registry) -> str:
    return str(registry.client.get_experiment_by_name("clothing").tags["mlflow.note.content"])


def test_the_champion_moves_with_its_reason(registry: Registry, add_version: AddVersion) -> None:
    assert registry.champion() is None
    first, second = add_version(), add_version()
    assert registry.champion() is None

    registry.promote(first, "first model")
    registry.promote(second, "better")
    registry.promote(second, "a repeated request changes nothing")

    champion = registry.champion()
    assert (champion.version, champion.reason) == (2, "better")
    assert registry.version("1").reason == "replaced by clothing:v2; the gate: promoted: first model"


def test_rolling_back_goes_through_what_served_and_never_in_circles(
    registry: Registry, add_version: AddVersion
) -> None:
    first, second = add_version(), add_version()
    registry.promote(first, "first model")
    registry.promote(second, "better")
    registry.promote_by_hand(first)

    steps = [registry.roll_back() for _ in range(2)]

    assert [(left.version, back.version) for left, back in steps] == [(1, 2), (2, 1)]
    assert registry.champion().version == 1
    with pytest.raises(ModelError, match="clothing:v1 is the first champion"):
        registry.roll_back()


def test_what_is_said_of_a_version_is_what_is_true_of_it_now(registry: Registry, add_version: AddVersion) -> None:
    first, second = add_version(), add_version(0.4)
    registry.promote(first, "first model", "**Promoted**: first model\n\n| a table |")
    registry.note_decision(second, "no gain", "**Not promoted**: no gain\n\n| the second's |")

    registry.promote_by_hand(second)
    assert registry.version("2").reason == "promoted by hand; the gate: not promoted: no gain"
    assert description(registry, 2).startswith("Promoted by hand; the gate: not promoted: no gain\n\n[Report](")
    assert description(registry, 2).endswith("\n\n| the second's |")
    assert run_name(registry, second) == "v2 promoted by hand · 0.400 mIoU"
    assert note(registry).startswith("Champion clothing:v2, test mIoU 0.400.")

    registry.roll_back()
    assert registry.version("2").reason == "rolled back to clothing:v1 by hand; the gate: not promoted: no gain"
    assert "Promoted" not in description(registry, 2)
    assert run_name(registry, second) == "v2 rolled back · 0.400 mIoU"
    assert registry.version("1").reason.startswith("champion again because clothing:v2 was rolled back; the gate:")

    for _ in range(3):
        registry.promote_by_hand(second)
        registry.roll_back()
    assert registry.version("2").reason == "rolled back to clothing:v1 by hand; the gate: not promoted: no gain"


def test_deleted_versions_are_skipped_on_the_way_back(registry: Registry, add_version: AddVersion) -> None:
    versions = [add_version() for _ in range(3)]
    for version in versions:
        registry.promote(version, "better")
    registry.client.delete_model_version("clothing", "2")

    left, back = registry.roll_back()

    assert (left.version, back.version) == (3, 1)


def test_behind_a_deleted_champion_comes_the_one_before(registry: Registry, add_version: AddVersion) -> None:
    versions = [add_version() for _ in range(2)]
    for version in versions:
        registry.promote(version, "better")
    registry.client.delete_model_version("clothing", "2")
    assert registry.champion() is None

    assert registry.roll_back()[0] is None
    assert registry.champion().version == 1
    assert registry.champion().reason.startswith("champion again because the version after it was deleted")


def test_an_alias_that_somebody_set_in_mlflow_counts_as_having_served(
    registry: Registry, add_version: AddVersion
) -> None:
    versions = [add_version() for _ in range(3)]
    for version in versions:
        registry.promote(version, "better")
    registry.client.set_registered_model_alias("clothing", "champion", "1")

    assert registry.roll_back()[1].version == 3
    assert registry.roll_back()[1].version == 2


def test_a_rollback_that_was_killed_before_the_alias_moved_is_done_again(
    registry: Registry, add_version: AddVersion
) -> None:
    versions = [add_version() for _ in range(3)]
    for version in versions:
        registry.promote(version, "better")
    registry.client.set_registered_model_tag("clothing", "maskloop.served", "[1, 2]")

    assert [registry.roll_back()[1].version for _ in range(2)] == [2, 1]


def test_without_a_champion_there_is_nothing_to_roll_back(registry: Registry) -> None:
    with pytest.raises(ModelError, match="clothing has no champion yet"):
        registry.roll_back()


def test_what_was_weighed_stands_with_run_and_version(
    registry: Registry, add_version: AddVersion, tmp_path: Path
) -> None:
    version = add_version()

    registry.promote(version, "better", "**Promoted**: better\n\n| a table |")

    page = f"#/experiments/1/runs/{version.run_id}/artifacts/report.html?workflowType=machine_learning"
    assert description(registry, 1).splitlines()[0] == "Promoted: better"
    assert f"[Report]({page})" in description(registry, 1)
    assert "**" not in description(registry, 1)
    assert registry.file(version, "gate.md") == "**Promoted**: better\n\n| a table |"


def test_a_refused_challenger_says_why(registry: Registry, add_version: AddVersion) -> None:
    version = add_version()

    registry.note_decision(version, "no gain")

    assert registry.version_trained_on("dataset-0001").reason == "no gain"
    assert run_name(registry, version) == "v1 not promoted · 0.500 mIoU"
    assert registry.champion() is None


def test_a_training_that_was_cut_short_is_marked_everywhere(registry: Registry, add_version: AddVersion) -> None:
    version = add_version(steps="23/160", ended_by="minutes")
    registry.tag_run(version.run_id, {"maskloop.steps": "23/160", "maskloop.minutes": "4"})

    registry.note_decision(version, "the training was cut short after 23 of 160 steps")

    assert (version.done_steps, version.planned_steps, version.is_complete) == (23, 160, False)
    assert run_name(registry, version) == "v1 cut short · 0.500 mIoU · 23/160 steps · 4 min"
    assert description(registry, 1).startswith("Cut short: the training was cut short after 23 of 160 steps")
    assert registry.newest().is_complete is False


def test_a_training_that_got_no_better_is_complete(add_version: AddVersion) -> None:
    assert add_version(steps="120/160", ended_by="patience").is_complete


def test_a_paused_champion_says_why_until_it_is_promoted_again(registry: Registry, add_version: AddVersion) -> None:
    first, second = add_version(), add_version()
    registry.promote(first, "first model")

    registry.pause(first, "masks cost 20 s per photo")
    assert registry.champion().paused == "masks cost 20 s per photo"
    assert description(registry, 1).startswith("Paused, so it draws no masks: masks cost 20 s per photo; promoted:")
    assert "paused: masks cost 20 s per photo" in note(registry).splitlines()[0]

    registry.promote_by_hand(registry.champion())
    assert registry.champion().paused == ""
    assert registry.champion().reason == "first model"

    registry.pause(first, "masks cost 20 s per photo")
    registry.promote(second, "better")
    registry.roll_back()
    assert (registry.champion().version, registry.champion().paused) == (1, "")


def test_the_experiments_page_begins_with_the_champion_and_lists_the_runs(
    registry: Registry, add_version: AddVersion
) -> None:
    versions = [add_version(0.5 + number / 100, dataset=f"dataset-000{number}") for number in range(1, 4)]
    registry.tag_run(
        versions[2].run_id, {"maskloop.gain": "+0.031 (+0.012…+0.050)", "maskloop.dataset": "dataset-0003"}
    )
    registry.promote(versions[0], "first model")
    registry.promote(versions[2], "better | by far")

    head, _, *table = note(registry).splitlines()

    assert head.startswith("Champion clothing:v3, test mIoU 0.530. [")
    assert "viewStateShareKey=maskloop" in head
    assert len(table) == 2 + 3
    newest = next(row for row in table if row.startswith("| [v3](#/models/clothing/versions/3?"))
    assert "Promoted: better / by far | 0.530 | +0.031 (+0.012…+0.050)" in newest
    assert f"[report](#/experiments/1/runs/{versions[2].run_id}/artifacts/report.html?" in newest


def look(registry: Registry, version: ModelVersion, gate: str, folder: Path) -> None:
    (folder / GATE_FILE).write_text(gate, encoding="utf-8")
    registry.log_file(version.run_id, folder / GATE_FILE)


def test_a_look_counts_while_half_of_todays_families_were_in_it(
    registry: Registry, add_version: AddVersion, tmp_path: Path
) -> None:
    first, same, half, other, undecided = (add_version() for _ in range(5))
    look(registry, first, '{"compared": false, "test_families": ["a", "b", "c", "d"]}', tmp_path)
    look(registry, same, '{"compared": true, "test_families": ["a", "b", "c", "d", "e"]}', tmp_path)
    look(registry, half, '{"compared": true, "test_families": ["a", "b"]}', tmp_path)
    look(registry, other, '{"compared": true, "test_families": ["a"]}', tmp_path)

    assert registry.looks_at(["a", "b", "c", "d"]) == 2
    assert registry.looks_at(["a", "b", "c", "d"], before=half) == 1
    assert registry.looks_at(["x"]) == 0
    assert registry.looks_at([], before=undecided) == 0


def test_the_detectable_gain_is_the_newest_decided_versions(registry: Registry, add_version: AddVersion) -> None:
    assert registry.detectable_gain() is None
    first, second = add_version(), add_version()
    add_version()
    registry.tag(first, {DETECTABLE: "0.0800", SPLIT_CONFIG: "aaaa"})
    registry.tag(second, {DETECTABLE: "0.0500", SPLIT_CONFIG: "bbbb"})

    assert registry.detectable_gain() == 0.05
    assert registry.detectable_gain("bbbb") == 0.05
    assert registry.detectable_gain("aaaa") is None, "another split configuration says nothing"


def test_a_version_knows_what_it_started_from(registry: Registry, add_version: AddVersion) -> None:
    first = add_version()
    second = add_version(started_from="clothing:v1")
    third = add_version(started_from="clothing:v2")

    assert registry.ancestors(third) == ([second, first], "")
    registry.client.delete_model_version("clothing", "1")
    assert registry.ancestors(third) == ([second], "clothing:v1")
