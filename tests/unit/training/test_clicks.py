"""The click model learns from masks, answers on photos of any shape, and edits what is there."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CLICK_CURVES, CLICK_METRICS, CLICK_REPORT, CLICK_STEPS, CLICKS
from pipelines.demo.photos import SyntheticPhoto, draw_photo
from pipelines.errors import DatasetError, ModelError
from pipelines.params import IGNORE, Params, load_params
from pipelines.photos.decode import decode_image, encode_png
from pipelines.records import PhotoAddress
from pipelines.segmentation.click_network import CARD, ClickCard, ClickNetwork, load_clicks, save_clicks
from pipelines.segmentation.click_prompts import Click, as_shares, prompt_planes
from pipelines.segmentation.clicks import ClickModel, load_click_model, near_point
from pipelines.segmentation.embeddings import EmbeddingCache
from pipelines.segmentation.model import WEIGHTS, ModelCard, build_network, new_network, save_model
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.transforms import normalize, resize_image, resize_mask
from pipelines.segmentation.zoom import whole, window_around
from pipelines.settings import PROJECT_ROOT
from pipelines.training.click_learner import ClickLearner, click_loss, garments_of
from pipelines.training.click_simulation import next_click
from pipelines.training.evaluate_clicks import evaluate_clicks, known_photo, measure, summarise
from pipelines.training.train_clicks import train_clicks

SIZE = 96, 64
PRETRAINED = "timm-tf_efficientnet_lite0"
LABELS = {"coat": 3, "dress": 7}
ALL = load_params(PROJECT_ROOT / "params.yaml").label_ids
NAMES = {index: name for name, index in ALL.items()}


def largest(mask: np.ndarray) -> int:
    """The garment that covers most of a drawn photo."""
    return int(np.bincount(mask[(mask > 0) & (mask != IGNORE)]).argmax())


def inside(garment: np.ndarray) -> np.ndarray:
    """A click in the middle of a garment."""
    place = next_click(np.zeros_like(garment), garment)
    assert place is not None
    return np.array([place[:2]], np.float32)


@pytest.fixture(scope="module")
def card() -> ClickCard:
    return ClickCard(
        ModelCard("FPN", "timm-mobilenetv3_small_minimal_100", *SIZE, (0.5,) * 3, (0.5,) * 3, LABELS, keeps_aspect=True)
    )


@pytest.fixture
def small_clicks(small_training: Params) -> Params:
    fields = {"image_height": 96, "image_width": 64, "predict_scale": 1.0, "epochs": 1, "min_steps": 0, "batch_size": 2}
    return small_training.model_copy(update={"clicks": small_training.clicks.model_copy(update=fields)})


def test_planes_lie_where_the_prompts_are() -> None:
    mask = np.zeros(SIZE, bool)
    mask[:48] = True

    planes = prompt_planes(
        SIZE, [Click(10, 20, positive=True), Click(41, 61, positive=False)], (8, 16, 24, 40), as_shares(mask)
    )

    assert planes.shape == (13, 24, 16)
    assert np.unravel_index(planes[0].argmax(), planes[0].shape) == (5, 2)
    assert np.unravel_index(planes[1].argmax(), planes[1].shape) == (15, 10)
    assert planes[4].max() == 0, "the newest click is the negative one"
    assert planes[5].argmax() == planes[1].argmax()
    assert (planes[6].sum(), planes[7].min()) == (24, 1)
    assert planes[8:12, :12].min() == 1
    assert planes[8:12, 12:].max() == 0
    assert planes[12].min() == 1


def test_no_prompts_are_no_planes() -> None:
    assert not prompt_planes(SIZE, [], None, None).any()


@pytest.mark.parametrize("architecture", ["FPN", "UPerNet", "Unet"])
def test_any_plain_network_of_the_library_answers(card: ClickCard, architecture: str) -> None:
    network = ClickNetwork(replace(card, network=replace(card.network, architecture=architecture))).eval()

    with torch.inference_mode():
        features = network.encode(torch.zeros(1, 3, *SIZE))
        logits = network.decode(features, torch.zeros(1, 13, 24, 16), torch.tensor([1]))

    assert features.shape[2:] == (24, 16)
    assert logits.shape == (1, 1, 48, 32)
    assert network.class_logits(features).shape == (1, 3, 24, 16)


def test_a_network_that_is_not_plain_is_refused(card: ClickCard) -> None:
    with pytest.raises(ModelError, match="no encoder with a decoder"):
        ClickNetwork(
            replace(card, network=replace(card.network, architecture="DPT", encoder="tu-vit_tiny_patch16_224"))
        )


def test_it_is_saved_and_loaded(card: ClickCard, tmp_path: Path) -> None:
    network = ClickNetwork(card)
    save_clicks(network, card, tmp_path)

    loaded, loaded_card = load_clicks(tmp_path)

    assert loaded_card == card
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", [WEIGHTS, CARD])
def test_damaged_files_are_named(card: ClickCard, tmp_path: Path, name: str) -> None:
    save_clicks(ClickNetwork(card), card, tmp_path)
    (tmp_path / name).write_bytes(b"half")

    with pytest.raises(ModelError, match=name):
        load_clicks(tmp_path)


def test_pixels_that_nobody_can_name_do_not_count_in_the_loss() -> None:
    truth, judged = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    truth[..., :4] = 1
    right = torch.where(truth > 0, 9.0, -9.0)
    wrong = right.clone()
    wrong[..., :2, :] *= -1
    judged[..., :2, :] = 0

    assert float(click_loss(wrong, truth, judged)) == pytest.approx(float(click_loss(right, truth, judged)), abs=1e-4)
    assert float(click_loss(wrong, truth, torch.ones_like(judged))) > 0.1


def test_garments_are_the_labels_that_are_large_enough() -> None:
    mask = np.zeros((1, 48, 32), np.int64)
    mask[0, :20, :20], mask[0, 30:32, :4], mask[0, 40:] = 1, 2, IGNORE

    [garment] = garments_of(mask)

    assert (garment.channel, int(garment.truth.sum()), int((~garment.judged).sum())) == (1, 400, 256)


def views_of(drawn: SyntheticPhoto) -> list[tuple[np.ndarray, np.ndarray]]:
    """A photo and its mask as a whole, around its largest garment, and around one corner of it, as seen in use."""
    rows, columns = np.nonzero(drawn.mask == largest(drawn.mask))
    shown = float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
    middle = (shown[0] + shown[2]) / 2, (shown[1] + shown[3]) / 2
    windows = (
        whole(*drawn.mask.shape),
        *(window_around(part, *drawn.mask.shape, SIZE[0] / SIZE[1]) for part in (shown, (*shown[:2], *middle))),
    )
    return [
        (resize_image(drawn.image[window.inside], *SIZE), resize_mask(drawn.mask[window.inside].copy(), *SIZE))
        for window in windows
    ]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, card: ClickCard) -> ClickModel:
    """A small network that learned for some steps on drawn photos."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    views = [view for seed in range(16) for view in views_of(draw_photo(seed, ALL, (192, 128)))]
    photos = torch.from_numpy(np.stack([normalize(photo, (0.5,) * 3, (0.5,) * 3) for photo, _ in views]))
    channels = np.zeros(256, np.int64)
    channels[list(ALL.values())] = np.arange(1, len(ALL) + 1)
    masks = torch.from_numpy(np.stack([channels[mask] for _, mask in views]))
    options = params.train.model_copy(
        update={"architecture": "FPN", "encoder": PRETRAINED, "decoder": {}, "image_height": 96, "image_width": 64}
    )
    torch.manual_seed(0)
    trunk, _ = new_network(options, ALL)
    card = replace(card, network=replace(card.network, encoder=PRETRAINED, labels=ALL))
    network = ClickNetwork(card)
    network.take_trunk(trunk)
    learner = ClickLearner(network, options, np.bincount(masks.flatten().numpy(), minlength=20), 3)
    optimizer = torch.optim.AdamW(learner.parameters(), 1e-3)
    for step in range(192):
        chosen = torch.arange(4) + 4 * (step % (len(views) // 4))
        loss = learner.loss(learner(photos[chosen]), masks[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learner.renew_statistics([(photos[:24], masks[:24]), (photos[24:], masks[24:])])
    folder = tmp_path_factory.mktemp("learned")
    save_clicks(network, card, folder)
    return load_click_model(folder, folder / "features", "clicks:v1")


def test_it_learns_to_answer_clicks_and_to_edit(learned: ClickModel, tmp_path: Path) -> None:
    photos = [
        known_photo(str(seed), str(seed), drawn.image, drawn.mask, ALL, 0.01)
        for seed in range(8)  # that it saw: in so few steps it learns no more than them
        for drawn in [draw_photo(seed, ALL, (192, 128))]
    ]

    untaught = ClickModel(ClickNetwork(learned.card), learned.card, "", EmbeddingCache("untaught", tmp_path))

    before, values = (summarise(measure(segmenter, photos), 100) for segmenter in (untaught, learned))

    assert values["iou_after"][1] > before["iou_after"][1] + 0.1
    assert values["box"] > before["box"] + 0.1
    assert values["iou_after"][3] > values["iou_after"][0]
    assert values["from_mask"]["iou_after"][3] > values["from_mask"]["iou_before"]
    assert set(values["by_label"]) <= set(ALL)
    assert values["noc80"] <= values["noc85"] <= values["noc90"] <= 20


def test_without_a_label_the_click_says_which_garment_is_meant(learned: ClickModel) -> None:
    overlaps = []
    for drawn in (draw_photo(seed, ALL, (192, 128)) for seed in range(100, 112)):
        values, counts = np.unique(drawn.mask[(drawn.mask > 0) & (drawn.mask != IGNORE)], return_counts=True)
        garments = [drawn.mask == value for value in values[counts.argsort()[-2:]]]
        predictor = learned.predictor(drawn.image)
        for meant, other in (garments, garments[::-1]):
            mask, _ = predictor.predict(Prompts(inside(meant), np.array([True]), None, ""))
            overlaps.append(((mask & meant).sum() / meant.sum(), (mask & other).sum() / other.sum()))

    of_meant, of_other = np.mean(overlaps, axis=0)
    assert of_meant > of_other + 0.2


@pytest.mark.parametrize("shape", [(192, 128), (128, 192), (90, 400), (1500, 1000)])
def test_answers_have_the_photos_size_and_lie_where_the_click_is(learned: ClickModel, shape: tuple[int, int]) -> None:
    drawn = draw_photo(3, ALL, shape)
    garment = largest(drawn.mask)
    point = inside(drawn.mask == garment)

    mask, score = learned.predictor(drawn.image).predict(Prompts(point, np.array([True]), None, NAMES[garment]))

    assert mask.shape == shape
    assert mask[int(point[0, 1]), int(point[0, 0])]
    assert 0 < score <= 1


def test_an_edit_changes_nothing_far_from_the_click(learned: ClickModel) -> None:
    drawn = draw_photo(3, ALL, (192, 128))
    garment = largest(drawn.mask)
    before = drawn.mask == garment
    before[:12, :12] = True  # far from the garment
    rows, columns = np.nonzero(drawn.mask == garment)
    point = np.array([[columns[-1], rows[-1]]], np.float32)

    mask, _ = learned.predictor(drawn.image).predict(Prompts(point, np.array([True]), None, NAMES[garment], before))

    assert mask[:12, :12].all()


def test_the_label_is_told_only_where_a_model_may_have_a_say(learned: ClickModel) -> None:
    drawn, address = draw_photo(5, ALL, (192, 128)), PhotoAddress("gs://a/b.jpg", 1)
    point = inside(drawn.mask == largest(drawn.mask))

    def answers(*, use_prior: bool) -> list[np.ndarray]:
        predictor = learned.set_image(address, lambda: nullcontext(drawn.image), use_prior=use_prior)
        return [predictor.predict(Prompts(point, np.array([True]), None, label))[0] for label in ("coat", "dress")]

    told, untold = answers(use_prior=True), answers(use_prior=False)
    assert learned.is_ready(address)
    assert not np.array_equal(*told)
    assert np.array_equal(*untold)


def test_a_label_that_the_model_does_not_know_is_any_garment(learned: ClickModel) -> None:
    drawn = draw_photo(5, ALL, (192, 128))
    point = np.array([[64, 90]], np.float32)
    predictor = learned.predictor(drawn.image)

    new, none = (predictor.predict(Prompts(point, np.array([True]), None, label))[0] for label in ("kimono", ""))

    np.testing.assert_array_equal(new, none)


def test_only_parts_near_the_click_are_meant() -> None:
    changed = np.zeros((100, 100), bool)
    changed[10:20, 10:20], changed[60:70, 60:70] = True, True

    near = near_point(changed, (21, 15))

    assert near[10:20, 10:20].all()
    assert not near[60:].any()


def test_the_stages_leave_model_measures_and_pictures(dataset: Dataset, small_clicks: Params) -> None:
    train_clicks(dataset, small_clicks)
    evaluate_clicks(dataset, small_clicks)

    steps = json.loads(dataset.path(CLICK_STEPS).read_text())
    measures = json.loads(dataset.path(CLICK_METRICS).read_text())
    assert steps["done_steps"] == steps["planned_steps"]
    assert steps["started_from"] == "the encoder's pretrained weights"
    assert "val_iou_2_clicks" in pd.read_csv(dataset.path(CLICK_CURVES))
    assert set(measures["segmenters"]) == {"clicks", "grabcut"}
    assert len(measures["segmenters"]["clicks"]["iou_after"]) == 10
    assert {"curve.png", "garments.parquet"} < {path.name for path in dataset.path(CLICK_REPORT).iterdir()}
    assert any(path.suffix == ".jpg" for path in dataset.path(CLICK_REPORT).iterdir())
    load_clicks(dataset.path(CLICKS))


def test_the_same_photos_give_the_same_weights(dataset: Dataset, small_clicks: Params) -> None:
    train_clicks(dataset, small_clicks)
    first = (dataset.path(CLICKS) / WEIGHTS).read_bytes()

    train_clicks(dataset, small_clicks)

    assert (dataset.path(CLICKS) / WEIGHTS).read_bytes() == first


def test_it_begins_with_the_clothing_model(dataset: Dataset, small_clicks: Params) -> None:
    trunk, card = new_network(small_clicks.train, small_clicks.label_ids)
    save_model(trunk, card, dataset.path(Path("model")))

    train_clicks(dataset, small_clicks)

    assert json.loads(dataset.path(CLICK_STEPS).read_text())["started_from"] == "the clothing model's encoder"


def test_a_clothing_model_of_another_kind_is_left_out(
    dataset: Dataset, small_clicks: Params, caplog: pytest.LogCaptureFixture
) -> None:
    _, card = new_network(small_clicks.train, small_clicks.label_ids)
    other = replace(card, encoder="timm-tf_efficientnet_lite1")
    save_model(build_network(other), other, dataset.path(Path("model")))

    train_clicks(dataset, small_clicks)

    assert "the clothing model has another encoder" in caplog.text


def test_one_photo_is_too_few(dataset: Dataset, small_clicks: Params) -> None:
    table = dataset.manifest()
    table.loc[table["split"] == "train", "split"] = ["train", *["excluded"] * 4]
    dataset.write_table(Path("data/manifest.parquet"), table)

    with pytest.raises(DatasetError, match="at least two photos"):
        train_clicks(dataset, small_clicks)


def test_mlflow_loads_it_and_it_answers(learned: ClickModel, tmp_path: Path) -> None:
    from pipelines.models.packing import pack_model_code
    from pipelines.models.signatures import CLICK_ENTRY

    save_clicks(learned._network, learned.card, tmp_path / "network")
    code, package = pack_model_code(tmp_path / "code", "pyfunc_clicks.py")
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=str(code), artifacts={"network": str(tmp_path / "network")},
        code_paths=[str(package)], signature=CLICK_ENTRY.signature(), pip_requirements=[],
    )  # fmt: skip
    model, drawn = mlflow.pyfunc.load_model(str(tmp_path / "model")), draw_photo(3, ALL, (192, 128))
    garment = largest(drawn.mask)
    points = json.dumps([[*inside(drawn.mask == garment)[0].tolist(), 1]])
    photo = encode_png(drawn.image)

    answer = model.predict(pd.DataFrame({"image": [photo], "points": [points], "label": [NAMES[garment]]}))

    assert decode_image(answer["mask"][0]).shape == (192, 128, 3)
    with pytest.raises(mlflow.exceptions.MlflowException, match="row 0: no positive point"):
        model.predict(pd.DataFrame({"image": [photo], "points": ["[]"], "label": [""]}))
