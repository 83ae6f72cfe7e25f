"""Planted errors: where the wrong region comes from, whom it is shown to, and what is counted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from pipelines.dataset.compile import compile_dataset
from pipelines.dataset.dataset import Dataset
from pipelines.labelstudio.annotations import parse_annotation
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.planted import is_planted
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import task_data
from pipelines.params import IGNORE, Params
from pipelines.photos.copies import resample_mask
from pipelines.quality.planted import (
    GoldPhoto,
    MissRate,
    clear_planted_errors,
    donor_regions,
    miss_rates,
    plant_error,
    serve_gold_photos,
)
from pipelines.records import ImageRef, RegionMask
from tests.unit.conftest import COAT, DRESS


def truth() -> np.ndarray:
    """A coat in the middle of a 60×40 photo."""
    mask = np.zeros((60, 40), np.uint8)
    mask[10:30, 10:20] = COAT.id
    return mask


def region(rows: slice, columns: slice, height: int = 60, width: int = 40) -> np.ndarray:
    pixels = np.zeros((height, width), bool)
    pixels[rows, columns] = True
    return pixels


GOLD = GoldPhoto(4, "ab" * 32, truth())


class TestPlantError:
    def test_the_wrong_region_is_that_of_another_photo_at_its_place(self) -> None:
        planted = plant_error(truth(), [(DRESS.id, region(slice(40, 50), slice(0, 10)))])

        assert planted is not None
        np.testing.assert_array_equal(planted[0], np.where(region(slice(40, 50), slice(0, 10)), DRESS.id, truth()))
        assert planted[1] == DRESS.id

    def test_it_is_scaled_to_the_photo(self) -> None:
        planted = plant_error(truth(), [(DRESS.id, region(slice(80, 100), slice(0, 20), 120, 80))])

        assert planted is not None
        np.testing.assert_array_equal(planted[0] == DRESS.id, region(slice(40, 50), slice(0, 10)))

    def test_most_of_it_lies_on_background_however_far_it_must_move(self) -> None:
        """Over a coat, a dress could be a matter of opinion."""
        over_the_coat = region(slice(10, 30), slice(10, 20))

        planted = plant_error(truth(), [(DRESS.id, over_the_coat)])

        assert planted is not None
        wrong = planted[0] == DRESS.id
        assert np.count_nonzero(wrong & (truth() == 0)) >= 0.5 * np.count_nonzero(wrong)
        assert np.count_nonzero(wrong) >= 0.8 * np.count_nonzero(over_the_coat)

    def test_a_donor_that_fits_nowhere_gives_way_to_the_next(self) -> None:
        everywhere = np.where(region(slice(40, 60), slice(0, 40)), 0, COAT.id).astype(np.uint8)
        large, small = region(slice(0, 45), slice(0, 40)), region(slice(0, 5), slice(0, 5))

        planted = plant_error(everywhere, [(DRESS.id, large), (9, small)])

        assert planted is None or planted[1] == 9

    def test_where_nothing_fits_nothing_is_planted(self) -> None:
        covered = np.full((60, 40), COAT.id, np.uint8)
        assert plant_error(covered, [(DRESS.id, region(slice(0, 10), slice(0, 10)))]) is None
        assert plant_error(truth(), []) is None

    def test_what_nobody_could_name_stays_bare(self) -> None:
        unclear = truth()
        unclear[40:45] = IGNORE
        planted = plant_error(unclear, [(DRESS.id, region(slice(44, 54), slice(0, 10)))])
        assert planted is not None
        assert (planted[0][40:45] == IGNORE).all()


class TestDonors:
    MASKS = {  # noqa: RUF012  # never changed
        "no dress": truth(),
        "dress": np.where(region(slice(40, 50), slice(0, 10)), DRESS.id, truth()).astype(np.uint8),
        "speck": np.where(region(slice(40, 42), slice(0, 4)), DRESS.id, truth()).astype(np.uint8),
        "whole": np.where(region(slice(0, 60), slice(0, 40)), DRESS.id, truth()).astype(np.uint8),
        GOLD.sha256: truth(),
    }

    def manifest(self) -> pd.DataFrame:
        rows: list[dict[str, Any]] = []
        for name, mask in self.MASKS.items():
            ids, counts = np.unique(mask[mask > 0], return_counts=True)
            pixels = json.dumps({str(value): int(count) for value, count in zip(ids, counts, strict=True)})
            rows.append({"sha256": name, "class_ids": ids, "label_pixels": pixels, "height": 60, "width": 40})
        return pd.DataFrame(rows)

    def test_regions_of_a_plausible_size_of_labels_that_the_photo_lacks(self) -> None:
        [(label_id, donor)] = donor_regions(self.manifest(), GOLD, self.MASKS.__getitem__)

        assert label_id == DRESS.id
        np.testing.assert_array_equal(donor, region(slice(40, 50), slice(0, 10)))

    def test_a_photo_that_has_all_labels_has_no_donor(self) -> None:
        whole = replace(GOLD, truth=self.MASKS["dress"])
        assert list(donor_regions(self.manifest(), whole, self.MASKS.__getitem__)) == []


class Studio:
    """Keeps predictions by task the way Label Studio's API shows them, and what was done to tasks."""

    def __init__(self, predictions: dict[int, list[dict[str, Any]]]) -> None:
        self.predictions, self.tasks = predictions, {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        match request.method, request.url.path.strip("/").split("/"):
            case "GET", ["api", "predictions"]:
                return httpx.Response(200, json=self.predictions.get(int(request.url.params["task"]), []))
            case "PATCH", ["api", "predictions", number]:
                [prediction] = [
                    prediction
                    for of_task in self.predictions.values()
                    for prediction in of_task
                    if prediction["id"] == int(number)
                ]
                prediction |= body
                return httpx.Response(200, json=prediction)
            case "POST", ["api", "projects", "7", "import", "predictions"]:
                for number, prediction in enumerate(body, start=50):
                    self.predictions.setdefault(prediction["task"], []).append({"id": number, **prediction})
                return httpx.Response(201, json={"created": len(body)})
            case "PATCH", ["api", "tasks", number]:
                self.tasks[int(number)] = body
                return httpx.Response(200, json={})
        return httpx.Response(404, text=f"{request.method} {request.url.path}")


def client_of(studio: Studio) -> LabelStudioClient:
    return LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(studio))


def donors(_: GoldPhoto) -> Iterator[tuple[int, np.ndarray]]:
    yield DRESS.id, region(slice(40, 50), slice(0, 10))


def serve(studio: Studio, params: Params, *, version: str = "clothing:v4", plants: bool = True) -> int:
    return serve_gold_photos(client_of(studio), 7, [GOLD], donors, params, version=version, plants=plants)


class TestServing:
    def test_a_gold_photo_shows_its_truth_and_one_wrong_region(self, two_labels: Params) -> None:
        studio = Studio({})

        assert serve(studio, two_labels) == 1

        [prediction] = studio.predictions[4]
        assert [region["id"] for region in prediction["result"]] == ["gold--coat", "planted--dress"]
        assert prediction["model_version"] == "clothing:v4"
        assert all(0.7 <= region["score"] <= 1 for region in prediction["result"]), "such as a model's regions have"
        drawn = compile_regions(prediction["result"], two_labels.label_ids, 60, 40, 128).mask
        np.testing.assert_array_equal(np.where(drawn == DRESS.id, 0, drawn), truth())
        assert studio.tasks[4] == {"overlap": 2, "is_labeled": False}

    def test_on_a_smaller_copy_the_regions_have_its_size(self, two_labels: Params) -> None:
        studio, shown = Studio({}), replace(GOLD, shown_size=(30, 20))

        assert serve_gold_photos(client_of(studio), 7, [shown], donors, two_labels, version="clothing:v4", plants=True)

        [prediction] = studio.predictions[4]
        assert {(r["original_height"], r["original_width"]) for r in prediction["result"]} == {(30, 20)}
        drawn = compile_regions(prediction["result"], two_labels.label_ids, 60, 40, 128).mask
        wrong = drawn == DRESS.id
        assert wrong.any()
        np.testing.assert_array_equal(drawn[~wrong], resample_mask(resample_mask(truth(), 30, 20), 60, 40)[~wrong])

    def test_what_an_expert_began_with_gives_way_in_its_place(self, two_labels: Params) -> None:
        """Its id stays, because the expert's annotation names it."""
        studio = Studio({4: [{"id": 9, "model_version": "clothing:v3", "score": 0.5, "result": [{"id": "x"}]}]})

        serve(studio, two_labels)

        [prediction] = studio.predictions[4]
        assert prediction["id"] == 9
        assert is_planted(prediction["result"])

    def test_a_planted_error_that_is_shown_stays_under_the_new_version(self, two_labels: Params) -> None:
        studio = Studio({})
        serve(studio, two_labels)
        before = json.dumps(studio.predictions[4][0]["result"])

        assert serve(studio, two_labels, version="clothing:v5") == 1

        [prediction] = studio.predictions[4]
        assert prediction["model_version"] == "clothing:v5"
        assert json.dumps(prediction["result"]) == before

    def test_the_others_show_nothing(self, two_labels: Params) -> None:
        none = two_labels.quality.model_copy(update={"planted_share": 0.0})
        studio = Studio({4: [{"id": 9, "model_version": "clothing:v4", "result": [{"id": "clothing_3av4--coat"}]}]})

        assert serve(studio, two_labels.model_copy(update={"quality": none})) == 0

        [prediction] = studio.predictions[4]
        assert (prediction["id"], prediction["result"], prediction["model_version"]) == (9, [], "clothing:v4")
        assert studio.tasks[4] == {"overlap": 2, "is_labeled": False}

    def test_a_paused_champion_plants_nothing_and_clears_what_is_shown(self, two_labels: Params) -> None:
        studio = Studio({})
        serve(studio, two_labels)

        assert serve(studio, two_labels, version="clothing:v4 (paused)", plants=False) == 0

        [prediction] = studio.predictions[4]
        assert (prediction["result"], prediction["model_version"]) == ([], "clothing:v4 (paused)")

    def test_without_a_champion_photos_are_served_as_they_are(self, two_labels: Params) -> None:
        studio = Studio({})

        assert serve(studio, two_labels, version="", plants=False) == 0

        assert studio.predictions == {}
        assert studio.tasks[4] == {"overlap": 2, "is_labeled": False}

    def test_what_was_answered_is_cleared_and_nothing_else(self, two_labels: Params) -> None:
        usual = {"id": 8, "model_version": "clothing:v4", "result": [{"id": "clothing_3av4--coat"}]}
        studio = Studio({5: [dict(usual)]})
        serve(studio, two_labels)

        assert clear_planted_errors(client_of(studio), [4, 5, 6], "clothing:v4") == 1

        assert [prediction["result"] for prediction in studio.predictions[4]] == [[]]
        assert studio.predictions[5] == [usual]


@pytest.mark.parametrize("kept", [("gold--coat", "planted--dress"), ("gold--coat",), ()])
@pytest.mark.parametrize("is_gold", [False, True])
def test_what_began_with_a_wrong_region_is_no_part_of_a_dataset(
    two_labels: Params, tmp_path: Path, kept: tuple[str, ...], is_gold: bool
) -> None:
    """Whatever was done with it, and whoever marks it as the truth; the expert's mask stays, marked or not."""
    dataset, annotations = Dataset(tmp_path), []
    studio = Studio({})
    serve(studio, two_labels)
    [shown] = studio.predictions[4]
    image = ImageRef("gs://archive/photos/a.jpg", 1, GOLD.sha256, 60, 40)
    expert = region_json(RegionMask(COAT.name, truth() == COAT.id, 1.0), "by-hand")
    for person, raw in (
        (1, {"result": [expert], "ground_truth": not is_gold, "parent_prediction": None, "prediction": {}}),
        (2, {
            "result": [region for region in shown["result"] if region["id"] in kept], "ground_truth": is_gold,
            "parent_prediction": shown["id"], "prediction": shown,
        }),
    ):  # fmt: skip
        also = {"unique_id": f"of-{person}", "completed_by": person, "lead_time": 5.0, "was_cancelled": False}
        later = {"updated_at": f"2026-01-0{person}T00:00:00Z"}
        task = {"id": 4, "data": task_data(image, {})}
        annotations.append(parse_annotation(raw | also | later, task, {}, "unclear"))
    dataset.annotations.replace(annotations)

    table = compile_dataset(dataset, two_labels)

    assert table["annotations"].tolist() == [["of-1"]]
    np.testing.assert_array_equal(dataset.read_mask(GOLD.sha256), truth())


def test_people_are_counted_by_what_they_left() -> None:
    ada, bo = "ada@example.org", "bo@example.org"

    rates = miss_rates([(bo, "found"), (ada, "missed"), (ada, "found"), (ada, "missed")])

    assert list(rates.items()) == [(ada, MissRate(3, 2)), (bo, MissRate(1, 0))]


@pytest.mark.parametrize(
    ("missed", "shown", "low", "high"),
    [(0, 10, 0.0, 0.2775), (2, 3, 0.2077, 0.9385), (5, 50, 0.0435, 0.2136)],  # by hand, from Wilson's formula
)
def test_the_interval_is_wilsons(missed: int, shown: int, low: float, high: float) -> None:
    rate = MissRate(shown, missed)

    z, share = 1.959963984540054, missed / shown
    middle = share + z * z / (2 * shown)
    half = z * (share * (1 - share) / shown + z * z / (4 * shown * shown)) ** 0.5
    scale = 1 + z * z / shown
    assert rate.interval == pytest.approx(((middle - half) / scale, (middle + half) / scale))
    assert rate.interval == pytest.approx((low, high), abs=2e-4)
    assert rate.share == pytest.approx(share)
