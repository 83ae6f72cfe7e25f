"""The demo's trainings on drawn photos: small networks and a fixed number of steps.

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
CLICK_STEPS = 120
CLICKS: dict[str, Any] = {
    "image_height": 192,
    "image_width": 128,
    "predict_scale": 1.0,
    "min_steps": CLICK_STEPS,
    "max_steps": CLICK_STEPS,
    "max_minutes": 0,
    "judged": 24,
}


def use_small_training(workspace: Workspace) -> bool:
    """Commit `TRAINING` and `CLICKS` to a workspace without datasets whose sections are the project's own.

    Return whether it was committed: a section that people changed, or that datasets were made with, is left as it is.
    """
    path = workspace.path / "params.yaml"
    with workspace.locked():
        given, original = load_params(path), load_params(PROJECT_ROOT / "params.yaml")
        if (given.train, given.clicks) != (original.train, original.clicks) or workspace.dataset_tags():
            return False
        text = path.read_text(encoding="utf-8")
        for name, values in (("train", TRAINING), ("clicks", CLICKS)):
            text = _with_values(text, name, values)
        path.write_text(text, encoding="utf-8")
        workspace.git("commit", "--quiet", "--message", "Train a small network: photos are drawn", "params.yaml")
    return True


def _with_values(text: str, section: str, values: dict[str, Any]) -> str:
    """Return the text of a params.yaml with these values in a section; its comments stay."""
    before, heading, rest = re.split(rf"(?m)^({section}:.*\n)", text, maxsplit=1)
    body, separator, after = rest.partition("\n\n")
    for key, value in values.items():
        shown = yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
        body = re.sub(rf"(?m)^(  {key}:) *(?:\{{.*?\}}|\S+)", rf"\g<1> {shown}", body)
    return f"{before}{heading}{body}{separator}{after}"
