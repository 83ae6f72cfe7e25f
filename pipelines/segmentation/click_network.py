"""The network that answers clicks: a photo is encoded once, and prompts join its features late.

In the line of RITM (Sofiiuk, Petrov, Konushin, "Reviving iterative training with mask guidance", 2021): clicks and the
previous mask are planes of the input; of Segment Anything (Kirillov et al., 2023): the photo's features are computed
once and kept; and of FocalClick (Chen et al., 2022): a small head refines at a higher resolution, and what is asked for
is looked at from near (`pipelines.segmentation.zoom`). The label that is picked joins as a plane of its own, because
the network says of each pixel which garment it takes it for, and as a shift and scale of the head's features (FiLM,
Perez et al., 2018).

A model is a folder with `weights.safetensors` and `clicks.json`. No pickle is ever written or read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter
from torch.nn import functional

from pipelines.errors import ModelError
from pipelines.segmentation.model import ModelCard, build_network, is_plain, read_weights, write_network

CARD = "clicks.json"
STRIDE, FINE_STRIDE = 4, 2  # of the features and of the answer, in pixels of the network's input
PROMPT_PLANES = 13  # see `pipelines.segmentation.click_prompts`
_COARSE, _FINE = 64, 12  # channels of the features at the two strides
_HEADS = 8  # groups of channels whose likeness to the clicked places is a plane each
_WIDTHS = (40, 64, 96, 96)  # of the head at strides 4, 8, 16 and 32


@dataclass(frozen=True)
class ClickCard:
    """What a click network needs to be rebuilt and fed; `network` describes encoder, decoder, input and labels."""

    network: ModelCard

    __pydantic_config__ = ConfigDict(extra="forbid")  # a card may come from anywhere

    @property
    def labels(self) -> Mapping[str, int]:
        """Return the pixel value of each label in index masks."""
        return self.network.labels

    def channel_of(self, label: str) -> int:
        """Return the network's channel of a label, counted from 1; 0, any garment, where it has none."""
        return next((number for number, name in enumerate(self.labels, 1) if name == label), 0)


class ClickNetwork(torch.nn.Module):
    """Encoder, decoder and class logits of a clothing model, and the head that answers prompts.

    `encode` takes photos, and `decode` their features with prompts, so that features can be kept.
    """

    def __init__(self, card: ClickCard) -> None:
        super().__init__()
        trunk = build_network(card.network)
        if not is_plain(trunk):
            raise ModelError(
                f"{card.network.architecture} is no encoder with a decoder and a head, as click models need; choose "
                "another train.architecture in params.yaml"
            )
        self.encoder, self.decoder = trunk.get_submodule("encoder"), trunk.get_submodule("decoder")
        self.segmentation_head = trunk.get_submodule("segmentation_head")
        self.channels = len(card.labels) + 1
        early, decoded = _channels_of(self.encoder, self.decoder)
        self.coarse = torch.nn.Conv2d(decoded, _COARSE, 1)
        self.fine = torch.nn.Conv2d(early + 3, _FINE, 1)
        self.label = torch.nn.Embedding(self.channels, 2 * _WIDTHS[0])
        torch.nn.init.zeros_(self.label.weight)
        self.head = _Head(_COARSE + 4 * _HEADS + PROMPT_PLANES + 2)

    def take_trunk(self, trunk: torch.nn.Module) -> None:
        """Load the weights of encoder, decoder and class logits of a clothing model's network of the same kind."""
        for name in ("encoder", "decoder", "segmentation_head"):
            self.get_submodule(name).load_state_dict(trunk.get_submodule(name).state_dict())

    def encode(self, photos: torch.Tensor) -> torch.Tensor:
        """Return the features of (N, 3, h, w) float32 normalised photos: (N, E, h/4, w/4) float32."""
        size = photos.shape[2] // STRIDE, photos.shape[3] // STRIDE
        levels = self.encoder(photos)
        decoded = self.decoder(levels)
        classify = self.segmentation_head.get_submodule("0")  # what follows it enlarges the logits
        logits = classify(decoded)
        early = functional.avg_pool2d(photos, FINE_STRIDE)
        if levels[1].shape[1]:
            early = torch.cat([functional.interpolate(levels[1], early.shape[2:], mode="nearest"), early], dim=1)
        fine = functional.pixel_unshuffle(self.fine(early), STRIDE // FINE_STRIDE)
        return torch.cat([_at_size(self.coarse(decoded), size), _at_size(logits, size), fine], dim=1)

    def class_logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return the (N, C, h/4, w/4) float32 class logits that are part of the features."""
        return features[:, _COARSE : _COARSE + self.channels]

    def decode(self, features: torch.Tensor, prompts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of masks: (N, 1, h/2, w/2) float32, above 0 on the garment.

        `features` is what `encode` returns, one per prompt; `prompts` is (N, 13, h/4, w/4) float32 from
        `prompt_planes`; `labels` is (N,) int64, the channels of the garments' labels, 0 where any garment is meant.
        """
        coarse, fine = features[:, :_COARSE], features[:, _COARSE + self.channels :]
        probability = self.class_logits(features).softmax(dim=1)
        known = (labels > 0).to(probability.dtype)[:, None, None, None]
        of_label = probability.gather(1, labels[:, None, None, None].expand(-1, 1, *probability.shape[2:])) * known
        garment = (1 - probability[:, :1]) * known
        places = torch.cat([prompts[:, [0, 1, 6]], prompts[:, 8:12].mean(dim=1, keepdim=True)], dim=1)
        alike = _likeness(coarse, places)  # to positive clicks, negative ones, what the box and the mask hold
        planes = torch.cat([coarse, alike, prompts, of_label, garment], dim=1)
        scale, shift = self.label(labels)[:, :, None, None].chunk(2, dim=1)
        return self.head(
            planes, scale, shift, functional.pixel_shuffle(fine, 2), functional.pixel_shuffle(prompts[:, 8:12], 2)
        )

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Return `encode` of the photos."""
        return self.encode(photos)


class _Head(torch.nn.Module):
    """A small U-Net over the features' grid, and two convolutions at twice its resolution."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        first, second, third, fourth = _WIDTHS
        self.enter = torch.nn.Conv2d(planes, first, 1)
        self.down = torch.nn.ModuleList(
            torch.nn.Sequential(_convolution(a, b, stride=2), _Block(b))
            for a, b in ((first, second), (second, third), (third, fourth))
        )
        self.around = torch.nn.Conv2d(fourth, fourth, 1)
        self.up = torch.nn.ModuleList(
            torch.nn.Conv2d(a, b, 1) for a, b in ((fourth, third), (third, second), (second, first))
        )
        self.merge = torch.nn.ModuleList((_Block(third), _Block(second), _convolution(first, first)))
        self.answer = torch.nn.Conv2d(first, 1, 1)
        self.narrow = torch.nn.Conv2d(first, _FINE, 1)
        self.refine = torch.nn.Sequential(
            torch.nn.Conv2d(2 * _FINE + 2, _FINE, 3, padding=1), torch.nn.ReLU(),
            torch.nn.Conv2d(_FINE, _FINE, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(_FINE, 1, 1),
        )  # fmt: skip

    def forward(
        self, planes: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, fine: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Return (N, 1, 2h, 2w) logits of (N, C, h, w) planes; `fine` and `mask` are (N, …, 2h, 2w)."""
        levels = [functional.relu(self.enter(planes) * (1 + scale) + shift)]
        for down in self.down:
            levels.append(down(levels[-1]))
        value = levels.pop()
        value = value + self.around(value.mean(dim=(2, 3), keepdim=True))
        for up, merge in zip(self.up, self.merge, strict=True):
            level = levels.pop()
            value = merge(level + functional.interpolate(up(value), level.shape[2:], mode="bilinear"))
        rough = functional.interpolate(self.answer(value), fine.shape[2:], mode="bilinear")
        wide = functional.interpolate(self.narrow(value), fine.shape[2:], mode="bilinear")
        return rough + self.refine(torch.cat([wide, fine, mask, rough], dim=1))


def _convolution(before: int, after: int, stride: int = 1) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(before, after, 3, stride=stride, padding=1), torch.nn.GroupNorm(8, after), torch.nn.ReLU()
    )


class _Block(torch.nn.Module):
    """Two convolutions with a bypass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.GroupNorm(8, width), torch.nn.ReLU(),
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.GroupNorm(8, width),
        )  # fmt: skip

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the same shape."""
        return functional.relu(value + self.body(value))


def _likeness(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return how alike each pixel is to the weighted places, (N, P, h, w), by groups of channels: (N, 8·P, h, w)."""
    count, channels, height, width = features.shape
    groups = features.reshape(count * _HEADS, channels // _HEADS, height * width)
    groups = groups * groups.square().sum(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
    weights = places.flatten(2)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp_min(1e-6)
    means = weights.repeat_interleave(_HEADS, dim=0) @ groups.transpose(1, 2)  # (8·N, P, channels of a group)
    return (means @ groups).reshape(count, _HEADS * places.shape[1], height, width)


def _at_size(planes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if planes.shape[2:] == size:
        return planes
    if planes.shape[2] > size[0]:
        return functional.adaptive_avg_pool2d(planes, size)
    return functional.interpolate(planes, size, mode="bilinear")


def _channels_of(encoder: torch.nn.Module, decoder: torch.nn.Module) -> tuple[int, int]:
    """Return how many channels the encoder's first level and the decoder's output have."""
    with torch.inference_mode():
        levels = encoder.eval()(torch.zeros(1, 3, 64, 64))
        return levels[1].shape[1], decoder.eval()(levels).shape[1]


def save_clicks(network: ClickNetwork, card: ClickCard, folder: Path) -> None:
    """Write weights and card; the folder is created."""
    write_network(network, asdict(card), folder, CARD)


def load_card(folder: Path) -> ClickCard:
    """Load a click model's card; raise ModelError naming the file when it cannot be used."""
    try:
        return TypeAdapter(ClickCard).validate_python(json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / CARD} is no card of a click model ({error!r}); train or download the model again"
        ) from error


def load_clicks(folder: Path) -> tuple[ClickNetwork, ClickCard]:
    """Load a click model's folder; raise ModelError when its files are damaged or do not fit each other."""
    card = load_card(folder)
    network = ClickNetwork(card)
    read_weights(network, folder)
    return network.eval(), card
