"""Segment Anything (Kirillov et al., 2023) with official checkpoints only, hash-checked; never random weights.

An official file's name ends with the first hex digits of its SHA-256 (`sam_vit_b_01ec64.pth`); these are checked.
"""

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import numpy as np

from pipelines.errors import ModelError
from pipelines.segmentation.prompts import Prompts

CHECKPOINTS = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
_NAME = re.compile(r"sam_(vit_[blh])_([0-9a-f]{6,64})\.pth$")
_EMBEDDINGS_KEPT = 32  # 4 MiB each


class SegmentAnythingModel:
    """A loaded SAM; embeddings of the last photos are kept, and one photo is encoded once however many ask."""

    def __init__(self, network: object, name: str) -> None:
        from segment_anything import SamPredictor

        self.version = f"sam:{name}"
        self._predictor = SamPredictor(network)
        self._lock = threading.Lock()  # SamPredictor keeps the photo in attributes: one caller at a time
        self._embeddings: OrderedDict[str, tuple[object, tuple[int, int], tuple[int, int]]] = OrderedDict()

    def segment(self, key: str, load: Callable[[], np.ndarray], prompts: Prompts) -> tuple[np.ndarray, float]:
        """Give a (H, W) bool mask and the model's own quality estimate, 0..1.

        `key` identifies the photo's content; `load` gives its (H, W, 3) uint8 RGB pixels and is called only when the
        photo's embedding is not kept.
        """
        with self._lock:
            self._restore(key, load)
            single = len(prompts.points) == 1 and prompts.box is None
            masks, scores, _ = self._predictor.predict(
                point_coords=prompts.points if len(prompts.points) else None,
                point_labels=prompts.positive.astype(int) if len(prompts.points) else None,
                box=prompts.box,
                multimask_output=single,  # one point is ambiguous: take the best of three
            )
        best = int(np.argmax(scores))
        return masks[best].astype(bool), float(np.clip(scores[best], 0, 1))

    def _restore(self, key: str, load: Callable[[], np.ndarray]) -> None:
        predictor = self._predictor
        if key not in self._embeddings:
            predictor.set_image(load())
            self._embeddings[key] = (predictor.features, predictor.original_size, predictor.input_size)
            while len(self._embeddings) > _EMBEDDINGS_KEPT:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        predictor.features, predictor.original_size, predictor.input_size = self._embeddings[key]
        predictor.is_image_set = True


def load_sam(checkpoint: str, cache: Path) -> SegmentAnythingModel:
    """Load an official checkpoint given as a path or as vit_b, vit_l or vit_h (downloaded into `cache` once).

    Raises ModelError when the file is missing, cannot be downloaded, is not of the SHA-256 in its name, or holds
    another network.
    """
    import torch
    from segment_anything import sam_model_registry

    path = _download(CHECKPOINTS[checkpoint], cache) if checkpoint in CHECKPOINTS else Path(checkpoint)
    kind, expected = _official_name(path)
    _require_hash(path, expected)
    network = sam_model_registry[kind]()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (UnpicklingError, EOFError, RuntimeError, TypeError) as error:
        raise ModelError(f"{path} holds no weights of {kind} ({error}); use an official checkpoint") from error
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return SegmentAnythingModel(network, f"{kind}-{expected}")


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
