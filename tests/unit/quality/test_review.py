"""The review between a published dataset, a Label Studio and a registry: who judges what, and who is served what."""

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.records import encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.errors import DatasetError
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.quality import folds
from pipelines.quality.metrics import Quality, as_tables, log_quality
from pipelines.quality.planted import MissRate
from pipelines.quality.review import BLIND_REASON, review
from pipelines.records import Annotation, ImageRef, ModelVersion, RegionMask
from pipelines.settings import Settings
from tests.unit.conftest import COAT, DRESS
from tests.unit.labeling import Studio

HEIGHT, WIDTH = 60, 40
CHAMPION = ModelVersion("clothing", 4, "run-4", "dataset-0001", 0.5)


class Versions:
    """Published versions: manifests by tag, and one folder that holds the files of all."""

    def __init__(self, folder: Path) -> None:
        self.dataset = Dataset(folder)
        self.manifests: dict[str, pd.DataFrame] = {}

    def tags(self) -> list[str]:
        return sorted(self.manifests)

    def newest(self) -> str:
        if not self.manifests:
            raise DatasetError("nothing is published")
        return self.tags()[-1]

    def manifest(self, tag: str) -> pd.DataFrame:
        return self.manifests[tag]

    @contextmanager
    def checked_out(self, tag: str) -> Iterator[Dataset]:
        assert tag == self.newest()
        yield self.dataset


class Models:
    """A registry with a champion, whose network is in a folder; notes what is logged."""

    def __init__(self, champion: ModelVersion | None, folder: Path | None = None) -> None:
        self._champion, self._folder = champion, folder
        self.logged: dict[str, float] = {}

    def champion(self) -> ModelVersion | None:
        return self._champion

    def download(self, *_: object) -> Path:
        assert self._folder is not None, "nothing was to be judged by the champion"
        return self._folder

    def add_metrics(self, run_id: str, values: dict[str, float], step: int) -> None:
        assert (run_id, step) == ("run-4", 1)
        self.logged |= values


def photo(number: int) -> tuple[bytes, np.ndarray]:
    """A photo that is red at the top and blue below, on grey, and the mask of its coat and dress."""
    random = np.random.default_rng(number)
    pixels = random.integers(100, 140, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    left = int(random.integers(2, 12))
    mask[8:28, left : left + 24], mask[28:42, left : left + 24] = COAT.id, DRESS.id
    pixels[mask == COAT.id] = 220, 20, 20
    pixels[mask == DRESS.id] = 20, 20, 220
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), mask


Publish = Callable[..., tuple[Versions, Studio]]


@pytest.fixture
def publish(two_labels: Params, tmp_path: Path) -> Publish:
    """Publish so many photos, each with a task; masks may be damaged, and splits given by number."""

    def make(count: int, damage: dict[int, np.ndarray] | None = None, **splits: str) -> tuple[Versions, Studio]:
        versions, studio, rows = Versions(tmp_path / "dataset"), Studio(two_labels), []
        masks: dict[str, dict[str, bytes]] = defaultdict(dict)
        for number in range(count):
            data, mask = photo(number)
            mask = (damage or {}).get(number, mask)
            name = sha256_hex(data)
            versions.dataset.write_photo(name, data)
            masks[shard_of(name)][name] = encode_mask(mask)
            image = ImageRef(f"gs://archive/{number}.png", 1, name, HEIGHT, WIDTH)
            studio.tasks[number + 1] = {"id": number + 1, "data": task_data(image, {})}
            ids, pixels = np.unique(mask[mask > 0], return_counts=True)
            label_pixels = {str(value): int(size) for value, size in zip(ids, pixels, strict=True)}
            rows.append({
                "sha256": name, "split": splits.get(f"photo_{number}", "train"), "group": f"group {number // 2}",
                "family": f"family {number // 2}", "class_ids": ids, "label_pixels": json.dumps(label_pixels),
                "height": HEIGHT, "width": WIDTH,
            })  # fmt: skip
        for shard, of_shard in masks.items():
            versions.dataset.masks.write_shard(shard, of_shard)
        versions.manifests["dataset-0001"] = pd.DataFrame(rows)
        return versions, studio

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that learn for some seconds."""
    monkeypatch.setattr(folds, "_STEPS", 30)
    monkeypatch.setattr(folds, "_BATCH", 4)
    monkeypatch.setattr("pipelines.quality.review.ENCODERS", folds.ENCODERS[:1])


def run_review(
    versions: Versions, studio: Studio, params: Params, tmp_path: Path, models: Models | None = None
) -> Quality:
    settings = Settings(_env_file=None, var=tmp_path)
    return review(settings, versions, models or Models(None), studio.client, params)  # type: ignore[arg-type]  # stand-ins


def test_photos_are_judged_by_who_did_not_learn_from_them(
    publish: Publish, quick: None, two_labels: Params, tmp_path: Path, model_that_sees_coats: Path
) -> None:
    versions, studio = publish(44, photo_0="test", photo_1="test", photo_2="val", photo_3="val")

    quality = run_review(versions, studio, two_labels, tmp_path, Models(CHAMPION, model_that_sees_coats))

    assert quality.judged == {"clothing:v4": 4, "folds": 40}
    assert str(quality).endswith("look wrong (4 judged by clothing:v4, 40 judged by folds)")
    kept = [path.name for path in (tmp_path / "quality").rglob("*") if path.is_file()]
    assert len(kept) == 40, "features are kept of what they judge"


@pytest.mark.parametrize("learned_from", ["dataset-0007", "dataset-0001"])
def test_a_champion_judges_nothing_that_it_may_have_learned_from(
    publish: Publish, quick: None, two_labels: Params, tmp_path: Path, learned_from: str
) -> None:
    """A dataset that nobody knows, and one in which the test photos were for training."""
    versions, studio = publish(44)
    now = versions.manifests["dataset-0001"]
    versions.manifests["dataset-0002"] = now.assign(split=["test"] * 4 + ["train"] * 40)

    quality = run_review(versions, studio, two_labels, tmp_path, Models(replace(CHAMPION, dataset=learned_from)))

    assert quality.judged == {"folds": 44}


def test_the_worst_mask_stands_first_in_the_tab_with_its_reason(
    publish: Publish, quick: None, two_labels: Params, tmp_path: Path
) -> None:
    without_dress = np.where(photo(7)[1] == DRESS.id, 0, photo(7)[1]).astype(np.uint8)
    versions, studio = publish(40, {7: without_dress})
    studio.tasks[3]["data"]["review"] = "1 · the model sees hat where nothing is drawn (9.0% of the photo)"

    quality = run_review(versions, studio, two_labels, tmp_path)

    said = {number: task["data"].get("review", "") for number, task in studio.tasks.items()}
    first = min((text, number) for number, text in said.items() if text)
    assert first[1] == 8
    assert "the model sees dress where nothing is drawn" in first[0]
    assert quality.label_issues[0].reason in first[0]
    assert "hat" not in said[3], "what is not said any more leaves the tab"
    assert sorted(text for text in said.values() if text) == [
        text for issue in quality.label_issues for text in said.values() if text.endswith(issue.reason) and text
    ], "ordered as text they stand as the worst first"


@pytest.mark.parametrize("champion", [CHAMPION, None], ids=["judged by the champion", "judged by folds"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_of_photos_of_blind_splits_no_opinion_of_a_model_is_shown(
    publish: Publish, quick: None, two_labels: Params, tmp_path: Path, model_that_sees_coats: Path,
    champion: ModelVersion | None, split: str,
) -> None:  # fmt: skip
    """Whoever corrects such a mask must look at the photo and not for what a model sees there."""
    without_dress = {number: np.where(photo(number)[1] == DRESS.id, 0, photo(number)[1]) for number in (0, 2, 6, 8)}
    versions, studio = publish(48, without_dress, photo_6=split, photo_7=split, photo_8=split, photo_9=split)

    quality = run_review(versions, studio, two_labels, tmp_path, Models(champion, model_that_sees_coats))

    texts = {number - 1: task["data"].get("review", "") for number, task in studio.tasks.items()}
    blind = [texts[number] for number in (6, 7, 8, 9) if texts[number]]
    assert texts[6], "it is shown all the same"
    assert texts[8]
    assert {text.partition(" · ")[2] for text in blind} == {BLIND_REASON}
    assert all(text.partition(" · ")[0].isdecimal() for text in blind), "the number orders the tab and says no more"
    assert not re.search(r"coat|dress|model|%|\d|nothing is drawn", BLIND_REASON)
    assert "the model sees" in texts[0], "of photos that people draw with masks the reason is shown"
    shas = set(versions.manifests["dataset-0001"].query("split != 'train'")["sha256"])
    printed = {issue.reason for issue in quality.label_issues if issue.sha256 in shas}
    assert printed == {BLIND_REASON}, "who reads the terminal corrects masks as well"


def test_of_a_few_photos_nothing_is_said(publish: Publish, two_labels: Params, tmp_path: Path) -> None:
    versions, studio = publish(6)

    quality = run_review(versions, studio, two_labels, tmp_path)

    assert (quality.judged, quality.label_issues) == ({}, ())
    assert "too few photos" in str(quality)


class TestOddAnnotations:
    """Photos with odd annotations, and photos that no mask could be made of, stand first, whatever their split."""

    def publish_odd(self, publish: Publish, **splits: str) -> tuple[Versions, Studio]:
        versions, studio = publish(6, **splits)
        manifest = versions.manifests["dataset-0001"]
        manifest["odd"] = ["", "", "points of dress without their mask", "", "a mask without a label", ""]
        left_out = sha256_hex(photo(5)[0])
        versions.manifests["dataset-0001"] = manifest[manifest["sha256"] != left_out]
        image = ImageRef("gs://archive/5.png", 1, left_out, HEIGHT, WIDTH)
        for uuid, minute in (("older", 1), ("newer", 2)):
            when = datetime(2026, 1, 1, 12, minute, tzinfo=UTC)
            annotation = Annotation(uuid, 6, image, {}, "ada", when, 9.0, False, "", {"result": []})
            versions.dataset.annotations.update([annotation], ())
        versions.dataset.write_left_out({"newer": "region r1 lacks its outline", "gone": "of a photo that is gone"})
        return versions, studio

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_they_are_shown_until_they_are_corrected(
        self, publish: Publish, two_labels: Params, tmp_path: Path, split: str
    ) -> None:
        versions, studio = self.publish_odd(publish, photo_2=split, photo_4=split)

        quality = run_review(versions, studio, two_labels, tmp_path)

        assert {number: task["data"].get("review", "") for number, task in studio.tasks.items()} == {
            1: "", 2: "", 3: "1 · points of dress without their mask", 4: "", 5: "2 · a mask without a label",
            6: "3 · the photo is left out: region r1 lacks its outline",
        }  # fmt: skip
        assert list(quality.odd.values())[:2] == ["points of dress without their mask", "a mask without a label"]
        assert [table.row_count for table in as_tables(quality)][:1] == [3]

        manifest = versions.manifests["dataset-0001"]
        versions.manifests["dataset-0002"] = manifest.assign(odd="")
        versions.dataset.write_left_out({})
        assert run_review(versions, studio, two_labels, tmp_path).odd == {}
        assert not any(task["data"].get("review") for task in studio.tasks.values())

    def test_they_stand_before_what_models_suspect(
        self, publish: Publish, quick: None, two_labels: Params, tmp_path: Path
    ) -> None:
        without_dress = {number: np.where(photo(number)[1] == DRESS.id, 0, photo(number)[1]) for number in (7, 30)}
        versions, studio = publish(40, without_dress)
        versions.manifests["dataset-0001"]["odd"] = ["", *["a mask without a label"] * 9, *[""] * 30]

        quality = run_review(versions, studio, two_labels, tmp_path)

        texts = sorted(text for task in studio.tasks.values() if (text := task["data"].get("review", "")))
        assert [text.partition(" · ")[2] for text in texts[:9]] == ["a mask without a label"] * 9
        assert "the model sees dress where nothing is drawn" in texts[9]
        assert len(texts) == 9 + sum(issue.sha256 not in quality.odd for issue in quality.label_issues)


class TestGold:
    """Photos whose truth an expert set, in an archive that is too small for judges."""

    def draw(self, versions: Versions, number: int, person: str, mask: np.ndarray, **fields: Any) -> None:
        name = sha256_hex(photo(number)[0])
        labels = {COAT.name: COAT.id, DRESS.name: DRESS.id}
        regions = [
            region_json(RegionMask(label, mask == value, 1.0), f"{person}-{label}")
            for label, value in labels.items()
            if (mask == value).any()
        ]
        fields = {"prediction_version": "", "planted": "", "gold": False} | fields
        image = ImageRef(f"gs://archive/{number}.png", 1, name, HEIGHT, WIDTH)
        uuid, raw = f"{person}-{number}", {"result": regions, "ground_truth": fields.pop("gold")}
        annotation = Annotation(
            uuid, number + 1, image, {}, person, datetime(2026, 1, 1, tzinfo=UTC), 9.0, False,
            raw=raw, **fields,
        )  # fmt: skip
        versions.dataset.annotations.update([annotation], ())

    @pytest.fixture
    def gold(self, publish: Publish) -> tuple[Versions, Studio]:
        """A gold photo without a dress among others that have one."""
        coat = np.where(photo(0)[1] == DRESS.id, 0, photo(0)[1]).astype(np.uint8)
        versions, studio = publish(6, {0: coat})
        self.draw(versions, 0, "expert", coat, gold=True)
        self.draw(versions, 1, "expert", photo(1)[1])
        return versions, studio

    def test_it_is_served_with_a_planted_error(
        self, gold: tuple[Versions, Studio], two_labels: Params, tmp_path: Path
    ) -> None:
        versions, studio = gold

        run_review(versions, studio, two_labels, tmp_path, Models(CHAMPION))

        [shown] = studio.predictions.values()
        assert [region["id"] for region in shown["result"]] == ["gold--coat", "planted--dress"]
        assert (shown["task"], shown["model_version"]) == (1, "clothing:v4")
        assert studio.tasks[1]["overlap"] == 2
        assert "overlap" not in studio.tasks[2]

    def test_a_task_that_somebody_has_open_is_left_alone(
        self, gold: tuple[Versions, Studio], two_labels: Params, tmp_path: Path
    ) -> None:
        versions, studio = gold
        studio.held = {1}

        run_review(versions, studio, two_labels, tmp_path, Models(CHAMPION))

        assert studio.predictions == {}

    @pytest.mark.parametrize("champion", [None, replace(CHAMPION, paused="it costs time")])
    def test_while_no_model_draws_masks_it_is_served_without(
        self, gold: tuple[Versions, Studio], two_labels: Params, tmp_path: Path, champion: ModelVersion | None
    ) -> None:
        versions, studio = gold

        run_review(versions, studio, two_labels, tmp_path, Models(champion))

        assert [prediction["result"] for prediction in studio.predictions.values()] == ([[]] if champion else [])
        assert studio.tasks[1]["overlap"] == 2

    def test_an_answer_counts_for_its_person_and_nowhere_else(
        self, gold: tuple[Versions, Studio], two_labels: Params, tmp_path: Path
    ) -> None:
        versions, studio = gold
        models = Models(CHAMPION)
        run_review(versions, studio, two_labels, tmp_path, models)
        self.draw(versions, 0, "novice@x.org", photo(0)[1], planted="missed", prediction_version="planted")
        self.draw(versions, 1, "novice@x.org", photo(1)[1])
        studio.tasks[1] |= {"overlap": 1}

        quality = run_review(versions, studio, two_labels, tmp_path, models)
        log_quality(models, quality)  # type: ignore[arg-type]  # a stand-in

        assert quality.missed == {"novice@x.org": MissRate(1, 1)}
        assert (quality.agreement.photos, quality.agreement.gold_of_person) == (1, {})
        assert models.logged["quality/missed/novice_x.org"] == 1.0
        assert models.logged["quality/alpha"] == 1.0
        assert [prediction["result"] for prediction in studio.predictions.values()] == [[]], (
            "nobody else begins with it"
        )
        assert studio.tasks[1]["overlap"] == 1, "it is served once"
        assert [str(table.title).split()[0] for table in as_tables(quality)] == ["too", "Agreement", "Planted"]


def test_without_a_dataset_there_is_nothing_to_look_through(two_labels: Params, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        run_review(Versions(tmp_path / "dataset"), Studio(two_labels), two_labels, tmp_path)
