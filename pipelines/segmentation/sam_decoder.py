"""Tuned mask decoders: weights that take the place of a checkpoint's own, bound to that checkpoint by its hash."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ModelError
from pipelines.fs import write_atomically
from pipelines.segmentation.sam_checkpoints import file_sha256
from pipelines.segmentation.sam_model import PromptableModel

DECODER = Path("sam", "decoder.safetensors")  # in the folder of the click model that was trained with it
_FIXED = ("conv_s0.", "conv_s1.")  # layers of SAM 2's decoder that run while a photo is encoded: embeddings hold them


def tuned_parameters(model: PromptableModel) -> dict[str, Any]:
    """Return the decoder's parameters by name, without those that embeddings depend on."""
    return {name: value for name, value in model.decoder.named_parameters() if not name.startswith(_FIXED)}


def save_decoder(model: PromptableModel, path: Path, details: Mapping[str, Any]) -> Path:
    """Write a model's mask decoder as safetensors, and beside it a card (`.json`); return the path.

    The card names the checkpoint and its SHA-256, and holds `details`.
    """
    from safetensors.torch import save

    weights = {name: value.detach().cpu().contiguous() for name, value in tuned_parameters(model).items()}
    write_atomically(path, save(weights))
    card = {
        "checkpoint": model.version, "checkpoint_sha256": model.sha256, "sha256": file_sha256(path), **details,
    }  # fmt: skip
    write_atomically(_card(path), (json.dumps(card, indent=2) + "\n").encode())
    return path


def tuned(model: PromptableModel, path: Path) -> PromptableModel:
    """Return a model with the mask decoder that was tuned for it, as its version says; it shares the rest with `model`.

    Raises ModelError when a file is missing or damaged, or when it was tuned for another checkpoint.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    again = "tune the decoder again, or leave it out"
    try:
        card = json.loads(_card(path).read_text(encoding="utf-8"))
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"the tuned decoder {path} cannot be read ({error}); {again}") from error
    if card.get("checkpoint_sha256") != model.sha256:
        raise ModelError(
            f"{path} was tuned for {card.get('checkpoint')} with SHA-256 {str(card.get('checkpoint_sha256'))[:12]}…, "
            f"and {model.version} has {model.sha256[:12]}…; {again}"
        )
    digest = file_sha256(path)
    if card.get("sha256") != digest:
        raise ModelError(f"{path} is not the file of its card {_card(path)}; {again}")
    other = model.with_own_decoder()
    try:
        weights, own = load(data), tuned_parameters(other)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); {again}") from error
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        raise ModelError(f"{path} holds other layers than the decoder of {model.version}; {again}")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    other.version += f"+tuned-{digest[:8]}"
    return other


def _card(path: Path) -> Path:
    return path.with_suffix(".json")
