"""The learned click model: it answers prompts on photos whose features are kept, and edits masks that are there.

A new mask is drawn on the whole photo, which tells where the garment is, and then on the window around it, which is
encoded when it is first looked at; at last with the answer as the mask that is there. A click on a mask looks at a
window that is the smaller, the nearer the click is to the outline. Of a mask that is edited only what the newest click
can mean changes: the changed parts that touch the click, as in FocalClick's progressive merge (Chen et al., 2022). All
other pixels stay exactly as they were. A mask that a few clicks made from nothing is drawn anew with each of them.
"""

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from pipelines.photos.decode import sha256_hex
from pipelines.records import PhotoAddress
from pipelines.segmentation.click_network import FINE_STRIDE, ClickCard, ClickNetwork, load_clicks
from pipelines.segmentation.click_prompts import prompt_planes
from pipelines.segmentation.click_view import View
from pipelines.segmentation.editing import distance_to_outline
from pipelines.segmentation.guided_filter import mask_that_follows_edges
from pipelines.segmentation.model import WEIGHTS
from pipelines.segmentation.postprocess import clean_likelihood
from pipelines.segmentation.prompts import PhotoOpener, Prompts, pixels_at
from pipelines.segmentation.runtime import Forward, compile_network
from pipelines.segmentation.single_flight import SingleFlightCache
from pipelines.segmentation.transforms import Area, mask_at_photo_size, normalize, resize_image
from pipelines.segmentation.zoom import rectangle_of, whole, window_around

if TYPE_CHECKING:
    from pipelines.segmentation.embeddings import Embedding, EmbeddingCache

_MAX_BYTES = 4 << 30  # of features on disk: a photo's take five megabytes and less than a second
_LONG_SIDE = 1536  # pixels of the copies that windows are cut from
_WINDOWS = 64  # whose features are kept in memory, three megabytes each
_NEARBY = 0.02  # share of the long side: changed parts this near to the newest click are meant by it
_BOX_MARGIN = 0.08  # share of a box's sides by which a garment may go beyond it
_DETAILS_FROM = 5  # clicks from which on a mask that they made is edited like others: the newest one means a detail
_REACH = 8.0  # size of the window for a click on a mask, in distances from the click to the outline …
_LEAST_SHOWN = 0.4  # … but at least this share of the mask's
_SURE = 4.0  # logit of a pixel whose class the person said
_SLACK = 0.5  # logits by which a pixel may be less likely than the clicked one that it changes with
_LEAST_REACH, _MOST_REACH = 2, 0.06  # of that part: pixels that the network sees, and a share of its long side


class ClickModel:
    """A learned click network as an interactive segmenter; a photo is encoded once, and clicks are answered at once.

    Without `cache`, the features of photos, only `predictor` can be used; `features_folder` is where it keeps them.
    """

    def __init__(
        self, network: ClickNetwork, card: ClickCard, version: str, cache: "EmbeddingCache | None" = None,
        features_folder: Path | None = None,
    ) -> None:  # fmt: skip
        self.features_folder = features_folder
        self.version, self.card = version, card
        self._network, self._cache = network.eval(), cache
        self._windows = SingleFlightCache[np.ndarray](_WINDOWS)
        self._encoding, self._decoding = threading.Lock(), threading.Lock()
        self._encoder: Forward | None = None

    def set_image(self, address: PhotoAddress, open_photo: PhotoOpener, *, use_prior: bool = False) -> "ClickPredictor":
        """Return a predictor for a photo; the photo is opened and encoded when its features are not cached.

        Without `use_prior` the network is not told the label, and what it takes pixels for has no say.
        """
        assert self._cache is not None, "services load the model with a cache"
        kept = self._cache.get(address.key, lambda: self._embedding(open_photo))
        return ClickPredictor(self, kept, address.key, use_prior)

    def predictor(self, photo: np.ndarray) -> "ClickPredictor":
        """Return a predictor for a (H, W, 3) uint8 RGB photo."""
        return ClickPredictor(self, self._embed(photo), "", use_prior=True)

    def is_ready(self, address: PhotoAddress) -> bool:
        """Return whether a click on this photo needs no encoder for the whole of it."""
        return self._cache is not None and self._cache.is_ready(address.key)

    def warm_up(self) -> None:
        """Convert and load the encoder, which takes seconds, before the first photo needs it."""
        with self._encoding:
            self._ready_encoder()

    def logits(self, features: np.ndarray, planes: np.ndarray, label: int) -> np.ndarray:
        """Return the (h/2, w/2) float32 logits of one garment; see `ClickNetwork.decode`."""
        with self._decoding, torch.inference_mode():
            return (
                self._network.decode(
                    torch.from_numpy(features[None]).float(), torch.from_numpy(planes[None]), torch.tensor([label])
                )[0, 0]
                .float()
                .numpy()
            )

    def features_of(self, key: str, embedding: "Embedding", window: Area) -> np.ndarray:
        """Return the features of a window of a photo; `key` names the photo, an empty one stands for none to keep."""
        if window == whole(embedding.height, embedding.width):
            return embedding.features
        if not key:
            return self._encode_window(embedding, window)
        return self._windows.get(f"{key} {window}", lambda: self._encode_window(embedding, window))

    def _encode_window(self, embedding: "Embedding", window: Area) -> np.ndarray:
        return self._encode(_photo_in(embedding, window))

    def _embedding(self, open_photo: PhotoOpener) -> "Embedding":
        with open_photo() as photo:
            return self._embed(photo)

    def _embed(self, photo: np.ndarray) -> "Embedding":
        from pipelines.segmentation.embeddings import Embedding

        height, width = photo.shape[:2]
        scale = min(1.0, _LONG_SIDE / max(height, width))
        small = resize_image(photo, max(1, round(height * scale)), max(1, round(width * scale)))
        return Embedding(self._encode(photo), height, width, photo=small)

    def _encode(self, photo: np.ndarray) -> np.ndarray:
        network = self.card.network
        prepared = normalize(network.input_photo(photo), network.mean, network.std)[None]
        with self._encoding:
            return self._ready_encoder()(prepared)[0].astype(np.float16)

    def _ready_encoder(self) -> Forward:
        if self._encoder is None:
            shape = (3, self.card.network.height, self.card.network.width)
            self._encoder = compile_network(self._network, shape, reduced_precision=True)
        return self._encoder


@dataclass(frozen=True)
class ClickPredictor:
    """Predicts masks on one photo whose features are there; `key` names the photo."""

    model: ClickModel
    embedding: "Embedding"
    key: str
    use_prior: bool

    @property
    def height(self) -> int:
        """Return the upright photo's height in pixels."""
        return self.embedding.height

    @property
    def width(self) -> int:
        """Return the upright photo's width in pixels."""
        return self.embedding.width

    def predict(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return a (height, width) bool mask and the network's mean probability inside of it, 0..1.

        A new mask is one clean region. A mask that is edited changes only near the newest click.
        """
        before = None if prompts.redraws else prompts.mask
        if before is None:
            return self._drawn(prompts)
        if not prompts.from_clicks or len(prompts.point_coords) >= _DETAILS_FROM:
            window = self._window_of_click(before, prompts.point_coords[-1])
            return self._edited(replace(prompts, from_clicks=False), before, window)
        window = self._window(before, prompts.point_coords)
        mask, score = self._edited(prompts, before, window)
        return self._edited(prompts, mask, window) if mask.any() else (mask, score)

    def _drawn(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Draw a mask from nothing: seen from afar, then from near, and once more with what was seen."""
        if prompts.box is not None:
            window = self._window(None, prompts.box.reshape(2, 2))
        else:
            rough, score = self._new(prompts, None, whole(self.height, self.width))
            window = self._window(rough, prompts.positive)
        if prompts.box is not None or window != whole(self.height, self.width):
            rough, score = self._new(prompts, None if prompts.box is not None else rough, window)
        return self._new(prompts, rough, window) if rough.any() else (rough, score)

    def _window(self, mask: np.ndarray | None, points: np.ndarray) -> Area:
        network = self.model.card.network
        shown = rectangle_of(mask, [(float(x), float(y)) for x, y in points])
        if shown is None:
            return whole(self.height, self.width)
        return window_around(shown, self.height, self.width, network.height / network.width)

    def _window_of_click(self, mask: np.ndarray, point: np.ndarray) -> Area:
        """Return the window for a click on a mask: the farther the click is from the outline, the larger."""
        [(x, y)] = pixels_at(point[None], mask.shape, self.height, self.width)
        shown = rectangle_of(mask, [(x, y)])
        assert shown is not None, "there is a point"
        aspect = self.model.card.network.height / self.model.card.network.width
        size = max(shown[2] - shown[0], (shown[3] - shown[1]) / aspect)
        half = min(max(_REACH * distance_to_outline(mask, (x, y)), _LEAST_SHOWN * size), size) / 2
        corners = np.array([[x - half, y - half * aspect], [x + half, y + half * aspect]])
        return self._window(None, corners.clip(0, [self.width - 1, self.height - 1]))

    def _likelihood(self, prompts: Prompts, mask: np.ndarray | None, view: View) -> np.ndarray:
        """Return the (h, w) float32 logits of a window; `mask` is the (H, W) bool mask of it that is there already.

        They have the size at which the network sees the window, and follow the edges that the photo shows there.
        """
        card = self.model.card
        planes = prompt_planes(
            view.input_size, view.clicks(prompts), view.box(prompts), None if mask is None else view.shares(mask)
        )
        features = self.model.features_of(self.key, self.embedding, view.window)
        label = card.channel_of(prompts.label) if self.use_prior else 0
        logits = np.ascontiguousarray(self.model.logits(features, planes, label)[view.answer])
        height, width = logits.shape
        guide = resize_image(_photo_in(self.embedding, view.window), FINE_STRIDE * height, FINE_STRIDE * width)
        return mask_that_follows_edges(logits, guide)

    def _new(self, prompts: Prompts, rough: np.ndarray | None, window: Area) -> tuple[np.ndarray, float]:
        """Draw a mask in a window; `rough` is what was seen from farther away."""
        view = View(self.model.card.network, window)
        likelihood = self._likelihood(prompts, None if rough is None else rough[window.inside], view)
        size = likelihood.shape[0], likelihood.shape[1]
        inside = replace(prompts, point_coords=prompts.point_coords - window.corner)
        for x, y in pixels_at(inside.positive, size, window.height, window.width):
            likelihood[y, x] = max(likelihood[y, x], _SURE)
        if prompts.box is not None:
            corners = prompts.box.reshape(2, 2) - window.corner
            likelihood[~_near_box(corners * (np.array(size[::-1]) / (window.width, window.height)), size)] = -_SURE
        negative = pixels_at(inside.negative, size, window.height, window.width)
        cleaned = clean_likelihood(likelihood, 0.0, [], negative)
        mask = np.zeros((self.height, self.width), bool)
        mask[window.inside] = mask_at_photo_size(cleaned, 0.0, window.height, window.width)
        return mask, _confidence(likelihood)

    def _edited(self, prompts: Prompts, before: np.ndarray, window: Area) -> tuple[np.ndarray, float]:
        view, shown = View(self.model.card.network, window), before[window.inside]
        likelihood = self._likelihood(prompts, shown, view)
        size = likelihood.shape[0], likelihood.shape[1]
        small = cv2.resize(shown.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 0.5
        if len(prompts.point_coords):
            [point] = pixels_at(prompts.point_coords[-1:] - window.corner, size, window.height, window.width)
            likelihood = obeying(likelihood, small, point, positive=bool(prompts.point_labels[-1]))
        changed = (likelihood > 0) != small
        if len(prompts.point_coords) and not prompts.from_clicks:
            changed = near_point(changed, point)
        changes = mask_at_photo_size(changed.astype(np.float32), 0.5, window.height, window.width)
        drawn = mask_at_photo_size(likelihood, 0.0, window.height, window.width)
        mask = before.copy()
        mask[window.inside] = np.where(changes, drawn, shown)
        return mask, _confidence(likelihood)


def _photo_in(embedding: "Embedding", window: Area) -> np.ndarray:
    """Return a window of the copy of a photo that its embedding holds, (h, w, 3) uint8 RGB."""
    assert embedding.photo is not None, "what a click model embeds holds the photo"
    height, width = embedding.photo.shape[:2]
    down, across = height / embedding.height, width / embedding.width
    top, left = int(window.top * down), int(window.left * across)
    bottom = max(top + 1, round((window.top + window.height) * down))
    right = max(left + 1, round((window.left + window.width) * across))
    return embedding.photo[top:bottom, left:right]


def _near_box(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels in a box, (2, 2) corners, or just outside of it: (h, w) bool; boxes are not exact."""
    (x1, y1), (x2, y2) = corners
    across, down = _BOX_MARGIN * (x2 - x1) + 1, _BOX_MARGIN * (y2 - y1) + 1
    inside = np.zeros(size, bool)
    inside[max(0, int(y1 - down)) : int(y2 + down) + 1, max(0, int(x1 - across)) : int(x2 + across) + 1] = True
    return inside


def obeying(likelihood: np.ndarray, mask: np.ndarray, point: tuple[int, int], *, positive: bool) -> np.ndarray:
    """Return (h, w) float32 logits that say of a point, (x, y) pixels, what the newest click said of it.

    Where the network says otherwise, and the (h, w) bool mask too, the click would change nothing, and the next one
    neither. What changes then is the part around the point that is as likely as the point is, near to it and no farther
    away than the mask's outline: the network's own order of the pixels with another threshold.
    """
    x, y = point
    at, is_wrong = float(likelihood[y, x]), bool(mask[y, x]) != positive
    if not is_wrong or (at > 0) == positive:
        return likelihood
    alike = (likelihood >= at - _SLACK if positive else likelihood <= at + _SLACK) & (mask != positive)
    reach = np.zeros(mask.shape, np.uint8)
    radius = min(distance_to_outline(mask, point), _MOST_REACH * max(mask.shape))
    cv2.circle(reach, point, max(_LEAST_REACH, round(radius)), 1, -1)
    _, parts = cv2.connectedComponents((alike & reach.view(bool)).view(np.uint8), connectivity=8)
    obeyed = likelihood.copy()
    obeyed[parts == parts[y, x]] = _SURE if positive else -_SURE
    return obeyed


def near_point(changed: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """Return the 8-connected parts of a (h, w) bool mask that touch the surroundings of a point, (x, y) pixels."""
    _, parts = cv2.connectedComponents(changed.view(np.uint8), connectivity=8)
    around = np.zeros(changed.shape, np.uint8)
    cv2.circle(around, point, max(1, round(_NEARBY * max(changed.shape))), 1, -1)
    meant = np.setdiff1d(np.unique(parts[around.view(bool)]), [0])
    return np.isin(parts, meant)


def _confidence(likelihood: np.ndarray) -> float:
    inside = likelihood[likelihood > 0]
    return float((1 / (1 + np.exp(-inside))).mean()) if inside.size else 0.0


def load_click_model(folder: Path, cache: Path, version: str) -> ClickModel:
    """Load a click model's folder; features are kept below `cache`, in a folder named after the weights.

    Raise ModelError when the model's files are damaged.
    """
    from pipelines.segmentation.embeddings import EmbeddingCache

    network, card = load_clicks(folder)
    digest = sha256_hex((folder / WEIGHTS).read_bytes())[:16]
    features = EmbeddingCache(features_name(digest), cache / digest, max_bytes=_MAX_BYTES)
    return ClickModel(network, card, version, features, cache / digest)


def features_name(digest: str) -> str:
    """Return what the features of photos are named after, from the first digits of the weights' SHA-256."""
    return f"clicks-{digest}"
