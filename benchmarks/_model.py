"""A clothing model whose masks are garments and not noise, for benchmarks that need one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from pipelines.demo.photos import draw_photo
from pipelines.params import IGNORE, Params
from pipelines.segmentation.model import new_network, save_model
from pipelines.segmentation.runtime import multiplies_bfloat16
from pipelines.segmentation.transforms import normalize, resize_image, resize_mask

_STEPS, _BATCH = 60, 4
Known = tuple[np.ndarray, np.ndarray]


def train_briefly(params: Params, folder: Path, photos: Sequence[Known] = ()) -> None:
    """Train the network of params.yaml for a minute and save it in `folder`.

    `photos` are photos, (H, W, 3) uint8 RGB, with their (H, W) index masks; without them 32 are drawn.
    """
    torch.manual_seed(7)
    network, card = new_network(params.train, params.label_ids)
    channel_of = np.zeros(256, np.uint8)
    channel_of[IGNORE] = IGNORE
    for channel, label_id in enumerate(card.index_of_channel):
        channel_of[label_id] = channel
    if not photos:
        drawn = [draw_photo(seed, params.label_ids) for seed in range(100, 132)]
        photos = [(drawing.image, drawing.mask) for drawing in drawn]
    size = params.train.image_height, params.train.image_width
    prepared = [normalize(resize_image(image, *size), card.mean, card.std) for image, _ in photos]
    inputs = torch.from_numpy(np.stack(prepared))
    truth = torch.from_numpy(np.stack([channel_of[resize_mask(mask, *size)] for _, mask in photos])).long()
    optimizer = torch.optim.AdamW(network.parameters(), params.train.lr)
    network.train()
    for step in track(range(_STEPS), "a short training", transient=True):
        part = torch.arange(step * _BATCH, (step + 1) * _BATCH) % len(photos)
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            loss = torch.nn.functional.cross_entropy(network(inputs[part]), truth[part], ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(network, card, folder)
