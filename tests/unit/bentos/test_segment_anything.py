"""The service behind labelers' clicks, over HTTP as Label Studio speaks it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from starlette.testclient import TestClient

from bentos.segment_anything.service import SegmentAnything
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.predictions import empty_prediction
from pipelines.labelstudio.render import region_json
from pipelines.records import RegionMask
from pipelines.segmentation.click_network import ClickCard, ClickNetwork, save_clicks
from pipelines.segmentation.model import ModelCard
from pipelines.segmentation.sam import load_sam
from pipelines.segmentation.sam_decoder import DECODER, save_decoder
from pipelines.services import pack_probabilities
from tests.unit.segmentation.small_sam2 import small_sam2

Tasks = dict[str, dict[str, Any]]


@pytest.fixture
def service(start: Callable[[Any], TestClient]) -> TestClient:
    return start(SegmentAnything)


def point(x: float, y: float, *, positive: bool = True) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": ["coat"]}
    return {"type": "keypointlabels", "value": value, "is_positive": positive}


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["coat"]}
    return {"type": "rectanglelabels", "value": value}


def click(task: dict[str, Any], *regions: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": [task], "params": {"context": {"result": list(regions)}}}


def mask_of(answer: dict[str, Any]) -> np.ndarray:
    ((region,),) = [item["result"] for item in answer["results"]]
    return rle_to_mask(region["value"]["rle"], region["original_height"], region["original_width"])


def test_it_says_who_answers_and_why(service: TestClient) -> None:
    health = service.get("/health").json()

    assert (health["status"], health["model_version"]) == ("UP", "grabcut")
    assert "MASKLOOP_SAM_CHECKPOINT" in health["fallback"]
    assert health["answers"] == {"point": "grabcut", "box": "grabcut", "edit": "grabcut"}
    setup = service.post("/setup", json={"project": "1"}).json()
    assert (setup["model_version"], setup["answers"]) == ("grabcut", health["answers"])
    assert service.get("/versions").json() == {"versions": ["grabcut"]}
    assert service.post("/webhook", json={"action": "ANNOTATION_CREATED"}).json() == {"status": "ok"}
    assert service.get("/").json() == health


@pytest.mark.parametrize("prompt", [point(29, 28), box(3, 6, 55, 45)], ids=["a point", "a box"])
@pytest.mark.parametrize("photo", ["upright", "turned"])
def test_a_click_gives_the_garment_on_the_upright_photo(
    service: TestClient, tasks: Tasks, photo: str, prompt: dict[str, Any]
) -> None:
    answer = service.post("/predict", json=click(tasks[photo], prompt)).json()

    mask, coat = mask_of(answer), np.zeros((360, 240), bool)
    coat[40:160, 20:120] = True
    assert mask.shape == coat.shape
    assert (mask & coat).sum() / (mask | coat).sum() > 0.9
    assert answer["model_version"] == answer["results"][0]["model_version"] == "grabcut"
    assert answer["results"][0]["result"][0]["value"]["brushlabels"] == ["coat"]


@pytest.mark.parametrize("regions", [[point(29, 28, positive=False)], [box(3, 6, 0, 0)], [{"type": "keypointlabels"}]])
def test_a_click_that_selects_nothing_gets_an_empty_result(
    service: TestClient, tasks: Tasks, regions: list[dict[str, Any]]
) -> None:
    answer = service.post("/predict", json=click(tasks["upright"], *regions))

    assert answer.status_code == 200
    assert [item["result"] for item in answer.json()["results"]] == [[]]


INTERFACE = (
    "<View><Image name='photo' value='$image'/><BrushLabels name='garments' toName='photo'><Label value='coat'/>"
    "<Label value='dress'/></BrushLabels></View>"
)


def of_label(region: dict[str, Any], label: str) -> dict[str, Any]:
    return {**region, "value": {**region["value"], region["type"]: [label]}}


class TestOtherProjects:
    """Requests as the official client's tests and other labeling interfaces make them."""

    def test_one_task_and_the_names_of_its_interface(self, service: TestClient, tasks: Tasks) -> None:
        body = {**click(tasks["upright"], point(29, 28)), "tasks": tasks["upright"], "label_config": INTERFACE}

        [[region]] = [item["result"] for item in service.post("/predict", json=body).json()["results"]]

        assert (region["from_name"], region["to_name"]) == ("garments", "photo")

    def test_two_labels_get_a_region_each_from_their_own_prompts(self, service: TestClient, tasks: Tasks) -> None:
        dress = of_label(box(3, 6, 55, 45), "dress")
        alone = [mask_of(service.post("/predict", json=click(tasks["upright"], region)).json())
                 for region in (point(29, 28), dress)]  # fmt: skip

        answer = service.post("/predict", json=click(tasks["upright"], point(29, 28), dress)).json()

        [result] = [item["result"] for item in answer["results"]]
        assert [region["value"]["brushlabels"] for region in result] == [["coat"], ["dress"]]
        for region, mask in zip(result, alone, strict=True):
            np.testing.assert_array_equal(rle_to_mask(region["value"]["rle"], 360, 240), mask)

    def test_a_label_whose_prompts_select_nothing_costs_no_other(self, service: TestClient, tasks: Tasks) -> None:
        nothing = of_label(point(50, 50, positive=False), "dress")

        [item] = service.post("/predict", json=click(tasks["upright"], nothing, point(29, 28))).json()["results"]

        assert [region["value"]["brushlabels"] for region in item["result"]] == [["coat"]]

    @pytest.mark.parametrize(("label", "config"), [("toga", ""), ("skirt", INTERFACE)])
    def test_an_unknown_label_gets_no_region(self, service: TestClient, tasks: Tasks, label: str, config: str) -> None:
        body = {**click(tasks["upright"], of_label(point(29, 28), label)), "label_config": config}

        answer = service.post("/predict", json=body)

        assert (answer.status_code, [item["result"] for item in answer.json()["results"]]) == (200, [[]])

    @pytest.mark.parametrize(
        "shape",
        [
            {"type": "polygonlabels", "value": {"points": [[3, 6], [58, 6], [58, 51], [3, 51]]}},
            {"type": "ellipselabels", "value": {"x": 29, "y": 28, "radiusX": 35, "radiusY": 28}},
            {"type": "rectanglelabels", "value": {"x": 58, "y": 51, "width": -55, "height": -45}},
        ],
        ids=lambda shape: shape["type"],
    )
    def test_shapes_are_boxes(self, service: TestClient, tasks: Tasks, shape: dict[str, Any]) -> None:
        mask = mask_of(service.post("/predict", json=click(tasks["upright"], of_label(shape, "coat"))).json())

        coat = np.zeros((360, 240), bool)
        coat[40:160, 20:120] = True
        assert (mask & coat).sum() / (mask | coat).sum() > 0.9

    def test_a_point_outside_of_the_photo_selects_nothing(self, service: TestClient, tasks: Tasks) -> None:
        answer = service.post("/predict", json=click(tasks["upright"], point(150, -20))).json()

        assert [item["result"] for item in answer["results"]] == [[]]


class TestEdits:
    """A click whose context holds the mask that it changes."""

    def region(self, rows: slice, **changes: Any) -> dict[str, Any]:
        mask = np.zeros((360, 240), bool)
        mask[rows, 20:120] = True
        return {**region_json(RegionMask("coat", mask, 0.5), "clothing-v1--coat"), **changes}

    def answer(self, service: TestClient, task: dict[str, Any], *regions: dict[str, Any]) -> list[dict[str, Any]]:
        response = service.post("/predict", json=click(task, *regions))
        assert response.status_code == 200
        [result] = [item["result"] for item in response.json()["results"]]
        return list(result)

    def test_a_click_changes_the_mask_and_keeps_its_id(self, service: TestClient, tasks: Tasks) -> None:
        upper = self.region(slice(40, 100))

        [region] = self.answer(service, tasks["upright"], upper, point(29, 36))

        assert (region["id"], region["origin"]) == ("clothing-v1--coat", "prediction-changed")
        mask = rle_to_mask(region["value"]["rle"], 360, 240)
        assert mask[40:100, 20:120].mean() > 0.9
        assert mask[110:150, 20:120].any()

    def test_a_negative_click_alone_takes_away(self, service: TestClient, tasks: Tasks) -> None:
        too_much = self.region(slice(40, 300))

        [region] = self.answer(service, tasks["upright"], too_much, point(29, 65, positive=False))

        mask = rle_to_mask(region["value"]["rle"], 360, 240)
        assert not mask[234, 70]
        assert mask[50:150, 20:120].mean() > 0.9

    def test_regions_without_a_click_become_their_union(self, service: TestClient, tasks: Tasks) -> None:
        parts = self.region(slice(40, 60)), self.region(slice(100, 160), id="other")

        [region] = self.answer(service, tasks["upright"], *parts)

        rows = rle_to_mask(region["value"]["rle"], 360, 240)[:, 30]
        assert region["id"] == "clothing-v1--coat"
        assert rows.nonzero()[0].tolist() == [*range(40, 60), *range(100, 160)]

    @pytest.mark.parametrize(
        "changes", [{"original_width": 99}, {"value": {"rle": [1], "brushlabels": ["coat"]}}, {"value": None}]
    )
    @pytest.mark.parametrize("prompts", [[], [point(29, 36)]], ids=["without a click", "with a click"])
    def test_a_mask_that_is_not_of_this_photo_is_not_changed(
        self, service: TestClient, tasks: Tasks, changes: dict[str, Any], prompts: list[dict[str, Any]]
    ) -> None:
        assert self.answer(service, tasks["upright"], self.region(slice(40, 100), **changes), *prompts) == []

    def test_a_click_for_another_label_beside_it_makes_a_new_region(self, service: TestClient, tasks: Tasks) -> None:
        upper, dress = self.region(slice(40, 100)), of_label(box(3, 6, 55, 45), "dress")

        coat, other = self.answer(service, tasks["upright"], upper, point(29, 36), dress)

        assert coat["id"] == "clothing-v1--coat"
        assert (other["value"]["brushlabels"], other["origin"]) == (["dress"], "manual")
        assert other["id"] != coat["id"]


def test_a_batch_gets_no_masks_but_an_item_per_task(service: TestClient, tasks: Tasks) -> None:
    answer = service.post("/predict", json={"tasks": [tasks["upright"], tasks["missing"]]}).json()

    assert answer["results"] == [{}, {}]


@pytest.mark.parametrize("body", [{"tasks": []}, {"tasks": [], "params": {"context": {"result": [point(1, 1)]}}}])
def test_without_tasks_the_results_are_still_no_empty_list(service: TestClient, body: dict[str, Any]) -> None:
    assert service.post("/predict", json=body).json()["results"] == [{}]


@pytest.mark.parametrize(
    ("photo", "status", "words"),
    [
        ("missing", 502, "photos/none.jpg at generation 1 is gone"),
        ("elsewhere", 502, "is not in gs://bento-photos"),
        ("no photo", 400, "JPEG, PNG, WebP"),
        ("empty", 400, "no bytes"),
        ("without photo", 400, "`image`"),
    ],
)
def test_a_photo_that_cannot_be_read_is_an_error_with_its_reason(
    service: TestClient, tasks: Tasks, photo: str, status: int, words: str
) -> None:
    answer = service.post("/predict", json=click(tasks[photo], point(50, 50)))

    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_a_body_that_is_no_request_is_refused(service: TestClient) -> None:
    assert service.post("/predict", json={"task": 1}).status_code == 400
    json_type = {"Content-Type": "application/json"}
    assert service.post("/predict", content=b"no JSON", headers=json_type).status_code == 422


def test_photos_are_made_ready_and_a_bad_one_is_reported(service: TestClient, tasks: Tasks) -> None:
    answer = service.post("/embed", json={"tasks": [tasks["without photo"], tasks["upright"]], "compute": True}).json()

    assert answer["ready"] == [False, True]
    assert "`image`" in answer["problems"]["0"]


@pytest.fixture
def asked_of_the_champion(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A segmentation service whose champion sees a coat in the lower half; gives the paths that it was asked for."""
    coat = np.zeros((2, 360, 240), np.float32)
    coat[1, 180:] = 1
    asked: list[str] = []

    class Champion(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            body = json.dumps(pack_probabilities(coat, ["coat"])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Champion)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    monkeypatch.setenv("MASKLOOP_SEGMENTATION_URL", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()


def test_the_champion_has_no_say_in_clicks_on_a_photo_that_is_drawn_without_masks(
    asked_of_the_champion: list[str], start: Callable[[Any], TestClient], tasks: Tasks
) -> None:
    service, prompt = start(SegmentAnything), box(3, 6, 55, 45)
    alone = service.post("/predict", json=click(tasks["upright"], prompt)).json()
    for predictions in ([], [empty_prediction("clothing:v2", 0.5)]):
        task = {**tasks["upright"], "predictions": predictions}
        again = service.post("/predict", json=click(task, prompt)).json()
        np.testing.assert_array_equal(mask_of(again), mask_of(alone))
    assert service.post("/embed", json={"tasks": [tasks["upright"]], "compute": True}).json()["ready"] == [True]
    assert asked_of_the_champion == []

    masks = {"result": [{"id": "clothing-v2--coat"}], "model_version": "clothing:v2"}
    helped = {**tasks["upright"], "predictions": [masks]}
    assert service.post("/predict", json=click(helped, prompt)).status_code == 200
    assert asked_of_the_champion == ["/probabilities"]
    after = service.post("/predict", json=click(tasks["upright"], prompt)).json()
    np.testing.assert_array_equal(mask_of(after), mask_of(alone))


HALF = {"original_height": 180, "original_width": 120}


class TestSmallerCopies:
    """The page shows a copy of half the photo's size, and says so in each region."""

    def test_a_click_is_answered_at_the_size_that_the_page_shows(self, service: TestClient, tasks: Tasks) -> None:
        large = mask_of(service.post("/predict", json=click(tasks["turned"], point(29, 28))).json())
        small = service.post("/predict", json=click(tasks["turned"], {**point(29, 28), **HALF})).json()

        [[region]] = [item["result"] for item in small["results"]]
        assert (region["original_height"], region["original_width"]) == (180, 120)
        np.testing.assert_array_equal(mask_of(small), large[1::2, 1::2])

    def test_the_part_of_a_mask_that_a_click_does_not_change_stays_as_it_is(
        self, service: TestClient, tasks: Tasks
    ) -> None:
        mask = np.zeros((180, 120), bool)
        mask[20:79, 10:30], mask[150:153, 100:107] = True, True  # a part of the coat, and a speck far away
        before = region_json(RegionMask("coat", mask, 0.5), "mine")

        answer = service.post("/predict", json=click(tasks["upright"], before, {**point(40, 28), **HALF})).json()

        after = mask_of(answer)
        assert after.shape == mask.shape
        assert after[20:79, 10:59].mean() > 0.9, "the coat is there"
        np.testing.assert_array_equal(after[120:], mask[120:])


class TestTunedDecoders:
    """A decoder of Segment Anything comes and goes with the click model that it was registered with."""

    @pytest.fixture
    def checkpoints(self, tmp_path: Path) -> list[Path]:
        folders = [tmp_path / "sam", tmp_path / "other"]
        for seed, folder in enumerate(folders):
            small_sam2(seed=seed).save_pretrained(folder)
        return folders

    @pytest.fixture
    def promote(self, empty_mlflow: str, tiny_card: ModelCard, tmp_path: Path) -> Callable[..., None]:
        """Register a click model, with a decoder that was tuned for a checkpoint, and let it serve."""
        client, card = MlflowClient(empty_mlflow), ClickCard(replace(tiny_card, height=64, width=64))
        experiment = client.create_experiment("clicks", artifact_location=str(tmp_path / "artifacts"))
        client.create_registered_model("clicks")

        def promote(answers: Mapping[str, str], checkpoint: Path | None = None) -> None:
            folder, run = tmp_path / "clicks", client.create_run(experiment).info.run_id
            save_clicks(ClickNetwork(card), card, folder)
            if checkpoint:
                save_decoder(load_sam(str(checkpoint), tmp_path / "base"), folder / DECODER, {})
            client.log_artifacts(run, str(folder), "network")
            tags = {"maskloop.answers": json.dumps({**answers, "measured": {"tuned_sam": 2.0}})}
            version = client.create_model_version("clicks", f"runs:/{run}/network", run, tags=tags)
            client.set_registered_model_alias("clicks", "champion", str(version.version))

        return promote

    def test_it_follows_the_champion_and_fits_its_checkpoint_only(
        self, start: Callable[[Any], TestClient], checkpoints: list[Path], promote: Callable[..., None], tasks: Tasks,
        empty_mlflow: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        own, other = checkpoints
        monkeypatch.setenv("MASKLOOP_SAM_CHECKPOINT", str(own))
        promote({"point": "sam", "box": "clicks", "edit": "clicks"})
        service = start(SegmentAnything)
        while service.get("/health").json()["fallback"]:
            time.sleep(0.05)

        def answers() -> dict[str, str]:
            service.post("/reload", json={})
            return dict(service.post("/setup", json={"project": "1"}).json()["answers"])

        plain = answers()["point"]
        assert plain.startswith("sam:sam-")
        promote({"point": "tuned_sam", "box": "clicks", "edit": "tuned_sam"}, own)
        tuned = answers()
        assert tuned["point"] == tuned["edit"]
        assert tuned["point"].startswith(f"{plain}+tuned-")
        assert tuned["box"] == "clicks:v2"
        health = service.get("/health").json()
        assert (health["answers"], health["measured"]) == (tuned, "clicks to an IoU of 0.85: tuned_sam 2.0")
        assert service.post("/predict", json=click(tasks["upright"], point(29, 28))).status_code == 200

        promote({"point": "tuned_sam"}, other)
        assert answers()["point"] == plain
        assert f"{plain} answers without the tuned decoder" in caplog.text
        assert "was tuned for sam:other-" in caplog.text

        MlflowClient(empty_mlflow).set_registered_model_alias("clicks", "champion", "2")
        assert answers() == tuned
