"""Segment Anything (Kirillov et al., 2023) with official checkpoints only, hash-checked; never random weights.

An official file's name ends with the first hex digits of its SHA-256 (`sam_vit_b_01ec64.pth`); these are checked.
"""

import hashlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING
from urllib.error import URLError

import numpy as np

from pipelines.errors import ModelError
from pipelines.segmentation.embeddings import Embedding, EmbeddingCache, Shelf
from pipelines.segmentation.prompts import Prompts

if TYPE_CHECKING:
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam

CHECKPOINTS = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
_NAME = re.compile(r"sam_(vit_[blh])_([0-9a-f]{6,64})\.pth$")


class SegmentAnythingModel:
    """A loaded SAM. A photo is encoded once, which takes seconds; clicks on photos that are ready never wait for it."""

    def __init__(self, network: "Sam", name: str, embeddings: EmbeddingCache) -> None:
        self.version = f"sam:{name}"
        self._network, self._embeddings = network, embeddings
        self._encoding = threading.Lock()  # one photo at a time: the encoder uses every core it may

    def segment(self, key: str, load: Callable[[], np.ndarray], prompts: Prompts) -> tuple[np.ndarray, float]:
        """Give a (H, W) bool mask and the model's own quality estimate, 0..1.

        `key` identifies the photo's content; `load` gives its (H, W, 3) uint8 RGB pixels and is called only when the
        photo has no embedding yet.
        """
        predictor = self._prepared(self.embed(key, load))
        masks, scores, _ = predictor.predict(
            point_coords=prompts.points if len(prompts.points) else None,
            point_labels=prompts.positive.astype(int) if len(prompts.points) else None,
            box=prompts.box,
            multimask_output=len(prompts.points) == 1 and prompts.box is None,  # ambiguous: take the best of three
        )
        best = int(np.argmax(scores))
        return masks[best].astype(bool), float(np.clip(scores[best], 0, 1))

    def embed(self, key: str, load: Callable[[], np.ndarray]) -> Embedding:
        """Give the photo's embedding, encoding the photo if nobody did before."""
        return self._embeddings.get(key, lambda: self._encode(load()))

    def is_ready(self, key: str) -> bool:
        """Tell whether a click on this photo needs no encoder."""
        return self._embeddings.is_ready(key)

    def _encode(self, photo: np.ndarray) -> Embedding:
        from segment_anything import SamPredictor

        with self._encoding:
            predictor = SamPredictor(self._network)
            predictor.set_image(photo)
        features = predictor.features[0].half().cpu().numpy()
        return Embedding(features, *photo.shape[:2])

    def _prepared(self, embedding: Embedding) -> "SamPredictor":
        """Give a predictor of its own to each click; it shares the network, which clicks only read."""
        import torch
        from segment_anything import SamPredictor

        predictor = SamPredictor(self._network)
        predictor.features = torch.from_numpy(embedding.features).float()[None].to(predictor.device)
        size = embedding.height, embedding.width
        predictor.original_size = size
        predictor.input_size = predictor.transform.get_preprocess_shape(*size, self._network.image_encoder.img_size)
        predictor.is_image_set = True
        return predictor


def load_sam(checkpoint: str, folder: Path, shelf: Shelf | None = None) -> SegmentAnythingModel:
    """Load an official checkpoint given as a path or as vit_b, vit_l or vit_h (downloaded once).

    Checkpoints and embeddings are kept in `folder`; embeddings are shared through `shelf`, if there is one.

    Raises ModelError when the file is missing, cannot be downloaded, is not of the SHA-256 in its name, or holds
    another network.
    """
    import torch
    from segment_anything import sam_model_registry

    path = _download(CHECKPOINTS[checkpoint], folder / "checkpoints") if checkpoint in CHECKPOINTS else Path(checkpoint)
    kind, expected = _official_name(path)
    _require_hash(path, expected)
    network = sam_model_registry[kind]()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (UnpicklingError, EOFError, RuntimeError, TypeError) as error:
        raise ModelError(f"{path} holds no weights of {kind} ({error}); use an official checkpoint") from error
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    embeddings = EmbeddingCache(f"{kind}-{expected}", folder / "embeddings", shelf=shelf)
    return SegmentAnythingModel(network, f"{kind}-{expected}", embeddings)


def _official_name(path: Path) -> tuple[str, str]:
    match = _NAME.search(path.name)
    if not match:
        raise ModelError(
            f"{path} is not named like an official checkpoint (such as {CHECKPOINTS['vit_b']}), so it cannot be "
            "checked; set MASKLOOP_SAM_CHECKPOINT to one, or to vit_b, vit_l or vit_h"
        )
    return match[1], match[2]


def _require_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ModelError(f"MASKLOOP_SAM_CHECKPOINT: there is no file {path}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise ModelError(f"{path} has SHA-256 {found[:12]}…, not {expected}…: it is damaged; download it again")


def _download(name: str, cache: Path) -> Path:
    import torch

    path = cache / name
    _, expected = _official_name(path)
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(_ADDRESS + name, str(path), hash_prefix=expected, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise ModelError(
                f"cannot download {_ADDRESS}{name} ({error}); fetch it by hand and set MASKLOOP_SAM_CHECKPOINT to it"
            ) from error
    return path
