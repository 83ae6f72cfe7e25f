"""The clothing model: a network of segmentation-models-pytorch with the labels and sizes it was trained for.

A model is a folder with `weights.safetensors`, `model.json` and, once it was evaluated, `proposals.json`. No pickle is
ever written or read.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipelines.errors import ModelError
from pipelines.params import IGNORE, DecoderOption, TrainParams
from pipelines.records import Prediction
from pipelines.segmentation.batching import per_item
from pipelines.segmentation.guided_filter import follow_edges
from pipelines.segmentation.postprocess import classes_of_photo, only_regions, score_regions, without_specks
from pipelines.segmentation.pretrained import load_pretrained, mean_and_std
from pipelines.segmentation.proposals import Proposals, load_proposals
from pipelines.segmentation.runtime import Forward, compile_network, max_concurrency
from pipelines.segmentation.transforms import Area, fitting_area, normalize, resize_image, resize_mask

WEIGHTS, CARD = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What a network needs to be rebuilt and fed; channel 0 is background, channel i is the i-th of `labels`.

    `decoder` holds the architecture's own options, as segmentation-models-pytorch names them. With `mirrored` the
    network runs on each photo and on its mirror image, and the mean of both counts. With `keeps_aspect` a photo lies in
    the middle of the input and the rest has the mean colour; without, as in models older than the option, the photo is
    stretched to the input. With `refined` the probabilities follow the photo's edges.
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
    refined: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")  # `load_card` checks types, because a card may come from anywhere

    @property
    def index_of_channel(self) -> np.ndarray:
        """Return the pixel value of each output channel: (C,) uint8."""
        return np.array([0, *self.labels.values()], np.uint8)

    @property
    def padding(self) -> tuple[int, ...]:
        """Return the mean colour, which pads photos of other aspect ratios: RGB in 0..255."""
        return tuple(round(255 * channel) for channel in self.mean)

    def area_of(self, height: int, width: int) -> Area:
        """Return where a (height, width) photo lies in the network's input."""
        if self.keeps_aspect:
            return fitting_area(height, width, self.height, self.width)
        return Area(0, 0, self.height, self.width)

    def input_photo(self, photo: np.ndarray) -> np.ndarray:
        """Return a (H, W, 3) uint8 RGB photo at the size of the network's input: (height, width, 3) uint8."""
        area = self.area_of(*photo.shape[:2])
        canvas = np.full((self.height, self.width, 3), self.padding, np.uint8)
        canvas[area.inside] = resize_image(photo, area.height, area.width)
        return canvas

    def input_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a (H, W) uint8 index mask placed as by `input_photo`: (height, width) uint8, padded with `IGNORE`."""
        area = self.area_of(*mask.shape)
        canvas = np.full((self.height, self.width), IGNORE, np.uint8)
        canvas[area.inside] = resize_mask(mask, area.height, area.width)
        return canvas


class ClothingModel:
    """A network with its card; many threads may predict with it, and `max_concurrency` of them run at once.

    `forward` maps (N, 3, h, w) float32 photos from `normalize` to (N, C, h, w) float32 class probabilities; N is 1 on a
    CPU. `proposals` decides which regions `predict` returns; without it, all.
    """

    def __init__(
        self, forward: Forward, card: ModelCard, version: str = "", min_region_share: float = 0,
        proposals: Proposals | None = None,
    ) -> None:  # fmt: skip
        self.card, self.version, self.min_region_share = card, version, min_region_share
        self.proposals = proposals
        self._forward = per_item(forward)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return class probabilities of a (H, W, 3) uint8 RGB photo: (C, h, w) float32.

        (h, w) is the photo's size in the network's input, without the padding.
        """
        card = self.card
        photo, inside = card.input_photo(image), card.area_of(*image.shape[:2]).inside
        probs = np.ascontiguousarray(self._forward(normalize(photo, card.mean, card.std))[:, *inside])
        return follow_edges(probs, photo[inside]) if card.refined else probs

    def score(self, image: np.ndarray) -> float:
        """Return the photo's score, as in `Prediction`, computed at the network's size and without masks."""
        probabilities = self.probabilities(image)
        channel, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
        return score_regions(channel.astype(np.uint8), confidence, {})[1]

    def index_mask(self, image: np.ndarray) -> np.ndarray:
        """Return the (H, W) uint8 index mask of a (H, W, 3) uint8 RGB photo, specks included."""
        return self.confident_mask(image)[0]

    def confident_mask(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (H, W) uint8 index mask, specks included, and its float32 probabilities at `mask_size`."""
        channel, confidence = classes_of_photo(self.probabilities(image), *image.shape[:2])
        return self.card.index_of_channel[channel], confidence

    def predict(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Prediction:
        """Predict garment regions with scores for a (H, W, 3) uint8 RGB photo of any size.

        The mask has the photo's size, or the (height, width) of `size`, that of a smaller copy of the same shape.
        With `proposals` it holds only regions that are expected to save people time, each scored with its chance of
        being accepted as it is. The photo's score is that of all regions, shown or not.
        """
        probabilities = self.probabilities(image)
        channel, confidence = classes_of_photo(probabilities, *(size or image.shape[:2]))
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
        # The library passes unknown options to the encoder, which may ignore them without a warning.
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
    except (
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # libraries raise all of these for options that do not fit
        raise ModelError(
            f"segmentation-models-pytorch has no architecture {card.architecture!r} with encoder {card.encoder!r} and "
            f"decoder options {dict(card.decoder)} ({error}); see train.architecture, train.encoder and train.decoder "
            "in docs/params.md"
        ) from error


def new_network(params: TrainParams, labels: Mapping[str, int]) -> tuple[torch.nn.Module, ModelCard]:
    """Build the network and the card that params.yaml asks for, with a pretrained encoder where it asks for one."""
    card = ModelCard(
        params.architecture, params.encoder, *params.predict_size, *mean_and_std(params), dict(labels),
        dict(params.decoder), params.predict_mirrored, keeps_aspect=True, refined=params.predict_refined,
    )  # fmt: skip
    network = build_network(card)
    load_pretrained(network.get_submodule("encoder"), params)
    return network, card


def save_model(network: torch.nn.Module, card: ModelCard, folder: Path) -> None:
    """Write weights and card; the folder is created."""
    write_network(network, asdict(card), folder, CARD)


def write_network(network: torch.nn.Module, card: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write a network's weights, and the fields of its card as JSON under a name; the folder is created."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    for file in (WEIGHTS, name):
        (folder / file).unlink(missing_ok=True)  # may be linked into DVC's cache
    save_file(state, folder / WEIGHTS)
    (folder / name).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def read_weights(network: torch.nn.Module, folder: Path) -> None:
    """Load a folder's weights into a network; raise ModelError when they are damaged, do not fit or are not finite."""
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded ({error}); download or train the model again") from error
    if any(not torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise ModelError(f"{folder / WEIGHTS} holds values that are not finite; train the model again")


def load_card(folder: Path) -> ModelCard:
    """Load a model's card; raises ModelError naming the file when it cannot be used."""
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
    """Load a model folder; raises ModelError when its files are damaged or do not fit each other.

    Without `reduced_precision` it computes in 32 bits on every machine, as evaluations do.
    """
    card = load_card(folder)
    network = build_network(card)
    read_weights(network, folder)
    forward = ready_to_run(network, card, reduced_precision=reduced_precision)
    return ClothingModel(forward, card, version, min_region_share, load_proposals(folder))


def ready_to_run(network: torch.nn.Module, card: ModelCard, *, reduced_precision: bool = True) -> Forward:
    """Compile a network, with the softmax that turns its output into probabilities, for `ClothingModel`.

    With `reduced_precision` it runs in bfloat16 where the processor is fast at that (`multiplies_bfloat16`). That moves
    the borders of a trained model's regions a little, and may change the masks of an uncertain model a lot; the
    evaluation measures how many pixels stay the same.
    """
    with_softmax = Probabilities(network, mirrored=card.mirrored)
    size = 3, card.height, card.width
    return compile_network(with_softmax, size, concurrency=max_concurrency(), reduced_precision=reduced_precision)


def is_plain(network: torch.nn.Module) -> bool:
    """Return whether a network is an encoder, then a decoder, then a head, and nothing else."""
    from segmentation_models_pytorch.base import SegmentationModel

    plain = isinstance(network, SegmentationModel) and type(network).forward is SegmentationModel.forward
    return plain and network.classification_head is None


class Probabilities(torch.nn.Module):
    """A network followed by a softmax: (N, 3, h, w) float32 photos to (N, C, h, w) float32 class probabilities.

    With `mirrored` the softmax takes the mean of the logits of a photo and of its mirror image, mirrored back.
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
        # The modules after the head's convolution enlarge its output, and the mean of small maps is cheaper.
        encoder, decoder, head = map(self.network.get_submodule, ("encoder", "decoder", "segmentation_head"))
        convolution, *enlarging = head.children()
        logits = convolution(decoder(encoder(both)))
        logits = (logits[:count] + logits[count:].flip(3)) / 2
        for module in enlarging:
            logits = module(logits)
        return logits
