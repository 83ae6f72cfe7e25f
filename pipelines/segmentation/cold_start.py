"""Masks before the first own model: a SegFormer of Hugging Face whose classes params.yaml maps to our labels.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (2021).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from pipelines.errors import ContractError, ModelError
from pipelines.segmentation.model import ClothingModel, ModelCard
from pipelines.segmentation.runtime import compile_network, max_concurrency

_WEIGHTS = "model.safetensors"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, where the checkpoint names no others
_INPUT_SIZE = 512


def load_cold_start(
    checkpoint: str, classes: Mapping[str, str], label_ids: Mapping[str, int], *, min_region_share: float = 0
) -> ClothingModel:
    """Load a SegFormer from a folder, or by its Hugging Face name (`owner/name` or `owner/name@revision`).

    `classes` maps the checkpoint's classes to our labels; classes that it leaves out are background, and the
    probabilities of classes with one label are added up before the most probable label wins.

    Raises ModelError when the checkpoint cannot be had, holds no safetensors or another network, or lacks a class, and
    ContractError when params.yaml has no such label.
    """
    network, folder = _load(checkpoint)
    if unknown := sorted(set(classes.values()) - set(label_ids)):
        raise ContractError(
            f"prelabel.cold_start of params.yaml names labels that it does not have: {', '.join(unknown)}; correct them"
        )
    class_ids = {str(name): int(number) for number, name in network.config.id2label.items()}
    if missing := sorted(set(classes) - set(class_ids)):
        raise ModelError(
            f"{checkpoint} has no class {', '.join(missing)}; its classes are {', '.join(class_ids)}: correct "
            "prelabel.cold_start of params.yaml"
        )
    labels = {label: number for label, number in label_ids.items() if label in classes.values()}
    merge = np.zeros((len(labels) + 1, len(class_ids)), np.float32)
    channel_of = {label: channel for channel, label in enumerate(labels, start=1)}
    for name, number in class_ids.items():
        merge[channel_of[classes[name]] if name in classes else 0, number] = 1
    height, width, mean, std = _preprocessing(folder)
    card = ModelCard("Segformer", checkpoint, height, width, mean, std, labels)
    merged = _Merged(network, torch.from_numpy(merge))
    forward = compile_network(merged, (3, height, width), concurrency=max_concurrency())
    with (folder / _WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = checkpoint.partition("@")[0].rstrip("/").rpartition("/")[2]
    return ClothingModel(forward, card, f"cold-start:{name}@{digest[:8]}", min_region_share)


class _Merged(torch.nn.Module):
    """A SegFormer whose output is the probability of each of our labels, (N, C, h / 4, w / 4)."""

    def __init__(self, network: torch.nn.Module, merge: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("merge", merge)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        shares = self.network(pixel_values=photos, return_dict=False)[0].softmax(dim=1)
        return torch.einsum("oc,nchw->nohw", self.get_buffer("merge"), shares)


def _load(checkpoint: str) -> tuple[Any, Path]:
    """Return the network and the folder that holds its files."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    from huggingface_hub import snapshot_download
    from transformers import SegformerForSemanticSegmentation

    remedy = "download it by hand and set MASKLOOP_COLD_START to its folder"
    name, _, revision = checkpoint.partition("@")
    folder = Path(checkpoint).expanduser()
    try:
        if not folder.is_dir():
            wanted = ["config.json", "preprocessor_config.json", _WEIGHTS]
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "segformer":
            raise ModelError(
                f"{checkpoint} is a {kind} and no SegFormer; set MASKLOOP_COLD_START to one, or to nothing"
            )
        network = SegformerForSemanticSegmentation.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # of the hub and of transformers
        raise ModelError(f"the cold-start model {checkpoint} cannot be loaded ({error}); {remedy}") from error
    return network.eval(), folder


def _preprocessing(folder: Path) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    path = folder / "preprocessor_config.json"
    fields = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    size = fields.get("size") or {}
    if not isinstance(size, Mapping):  # older files hold one number
        size = {"height": size, "width": size}
    return (
        int(size.get("height", _INPUT_SIZE)), int(size.get("width", _INPUT_SIZE)),
        tuple(fields.get("image_mean", _MEAN)), tuple(fields.get("image_std", _STD)),
    )  # fmt: skip
