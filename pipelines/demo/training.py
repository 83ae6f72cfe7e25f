"""The demo's training on drawn photos: a small network and a fixed number of steps.

Steps define it, not minutes, and one thread computes it in 32 bits. The same photos therefore give the same model on a
busy machine as on an idle one; only the minutes differ.
"""

import re
from typing import Any

import yaml

from pipelines.dataset.workspace import Workspace
from pipelines.params import load_params
from pipelines.settings import PROJECT_ROOT

STEPS = 150
TRAINING: dict[str, Any] = {
    "architecture": "FPN",
    "decoder": {},
    "encoder": "timm-tf_efficientnet_lite0",
    "image_height": 192,
    "image_width": 128,
    "predict_scale": 1.0,
    "predict_mirrored": False,
    "min_steps": STEPS,
    "max_steps": STEPS,
    "max_minutes": 0,
    "threads": 1,
    "precision": "float32",
}


def use_small_training(workspace: Workspace) -> bool:
    """Commit `TRAINING` to a workspace without datasets whose `train` section is the project's own.

    Return whether it was committed: a section that people changed, or that datasets were made with, is left as it is.
    """
    path = workspace.path / "params.yaml"
    with workspace.locked():
        if load_params(path).train != load_params(PROJECT_ROOT / "params.yaml").train or workspace.dataset_tags():
            return False
        before, _, rest = path.read_text(encoding="utf-8").partition("\ntrain:\n")
        section, separator, after = rest.partition("\n\n")
        for key, value in TRAINING.items():
            text = yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
            section = re.sub(rf"(?m)^(  {key}:) *(?:\{{.*?\}}|\S+)", rf"\g<1> {text}", section)
        path.write_text(f"{before}\ntrain:\n{section}{separator}{after}", encoding="utf-8")
        workspace.git("commit", "--quiet", "--message", "Train a small network: photos are drawn", "params.yaml")
    return True
