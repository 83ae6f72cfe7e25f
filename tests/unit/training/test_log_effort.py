"""What people did with each model's masks is noted on its run, and a champion whose masks cost time is paused."""

from collections.abc import Callable

import pandas as pd
import pytest

from pipelines.models.registry import Registry
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.reports.prelabel_report import log_effort


@pytest.fixture
def two_versions(add_version: Callable[..., ModelVersion]) -> list[ModelVersion]:
    """Versions 1 and 2 of the registry."""
    return [add_version(), add_version()]


def metric(registry: Registry, version: ModelVersion, name: str) -> tuple[float, int]:
    """Return the last value that was logged, and its step."""
    noted = registry.client.get_metric_history(version.run_id, name)[-1]
    return noted.value, noted.step


def test_metrics_are_logged_on_each_models_run_with_the_datasets_number(
    registry: Registry, two_versions: list[ModelVersion], three_models: pd.DataFrame, two_labels: Params
) -> None:
    first, second = two_versions

    noted = log_effort(registry, three_models, "dataset-0012", two_labels)

    assert noted == ["clothing:v1", "clothing:v2"]
    assert metric(registry, first, "labelers/untouched_share") == (1 / 3, 12)
    assert metric(registry, first, "labelers/iou/coat") == (2 / 3, 12)
    assert metric(registry, first, "labelers/seconds_saved_per_photo_high")[0] < -20
    assert metric(registry, second, "labelers/seconds_saved_per_photo")[0] == pytest.approx(40, abs=2)


def test_a_champion_whose_masks_cost_time_is_paused_once(
    registry: Registry, two_versions: list[ModelVersion], three_models: pd.DataFrame, two_labels: Params
) -> None:
    registry.promote_by_hand(two_versions[0])

    log_effort(registry, three_models, "dataset-0012", two_labels)

    paused = registry.champion()
    assert paused is not None
    assert paused.paused.startswith("its masks cost people 3") and paused.paused.endswith(", in dataset-0012")
    assert paused.paused in registry.file(paused, "paused.md")

    log_effort(registry, three_models, "dataset-0013", two_labels)
    assert registry.champion() == paused

    registry.promote_by_hand(paused)  # somebody lets it go on, and has the last word
    log_effort(registry, three_models, "dataset-0014", two_labels)
    champion = registry.champion()
    assert champion is not None and champion.paused == ""


@pytest.mark.parametrize("champion", [None, 1])
def test_no_other_version_is_paused(
    champion: int | None,
    registry: Registry,
    two_versions: list[ModelVersion],
    three_models: pd.DataFrame,
    two_labels: Params,
) -> None:
    if champion is not None:
        registry.promote_by_hand(two_versions[champion])

    log_effort(registry, three_models, "dataset-0012", two_labels)

    assert [version.paused for version in registry.versions()] == ["", ""]
