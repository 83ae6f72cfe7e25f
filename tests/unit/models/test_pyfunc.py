"""The registered model: it loads beside any other code, answers for photos of any size, and is served by MLflow."""

import ast
import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import cv2
import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from pipelines.dataset.files import CURVES, METRICS, MODEL, PROPOSALS, REPORT
from pipelines.models import packing
from pipelines.models.packing import pack_model_code, pinned_requirements
from pipelines.models.registry import Registry
from pipelines.models.run import Training
from pipelines.params import Params
from pipelines.segmentation.proposals import Seconds
from pipelines.settings import PROJECT_ROOT
from pipelines.training.acceptance import fit_proposals, region_table

PHOTO = np.zeros((32, 32, 3), np.uint8)
COAT = 3
_NEVER_CALLED = {"imagehash"}  # an import of `perceptual_hash`, which no model calls


@pytest.fixture
def training(model_that_sees_coats: Path, params: Params, tmp_path: Path) -> Training:
    folder = tmp_path / "training"
    shutil.copytree(model_that_sees_coats, folder / MODEL)
    (folder / REPORT).mkdir()
    (folder / CURVES).write_text("epoch,train_loss,val_miou\n0,1.5,\n")
    (folder / METRICS).write_text(json.dumps({"miou": 0.61, "per_class": {}}))
    proposals = fit_proposals(region_table([]), Seconds.from_params(params.effort), params.effort)
    (folder / PROPOSALS).write_text(proposals.as_json())
    shutil.copy(PROJECT_ROOT / "params.yaml", folder / "params.yaml")
    return Training(folder, "dataset-0001", "f" * 40, "+3 photos")


def photo(height: int, width: int, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, form, **options)
    return file.getvalue()


def turned_jpeg(height: int, width: int) -> bytes:
    """A photo that its EXIF turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return photo(height, width, "JPEG", exif=exif)


def decoded(mask: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)


def test_photos_of_a_call_may_have_any_sizes_and_stand_upright(
    registry: Registry, training: Training, params: Params
) -> None:
    registry.promote(registry.register(training, params, PHOTO), "first")

    model = mlflow.pyfunc.load_model("models:/clothing@champion")
    answer = model.predict(pd.DataFrame({"image": [photo(40, 50), turned_jpeg(20, 60)]}))

    assert [decoded(mask).shape for mask in answer["mask"]] == [(40, 50), (60, 20)]
    assert all((decoded(mask) == COAT).all() for mask in answer["mask"])
    [region] = json.loads(answer["regions"][0])
    assert (region["label"], region["id"], region["pixels"]) == ("coat", COAT, 2000)
    assert region["score"] == pytest.approx(answer["score"][0])
    assert region["score"] > 0.99
    assert region["chance"] == pytest.approx(1 / 3)
    with pytest.raises(MlflowException, match="photo 0: the bytes are none of JPEG, PNG, WebP"):
        model.predict(pd.DataFrame({"image": [b"no photo"]}))


def run_elsewhere(script: str, registry: Registry, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": registry.url, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_loads_beside_a_package_of_the_same_name_as_this_project(
    registry: Registry, training: Training, params: Params, tmp_path: Path
) -> None:
    registry.register(training, params, PHOTO)
    (tmp_path / "elsewhere" / "pipelines").mkdir(parents=True)
    (tmp_path / "elsewhere" / "pipelines" / "__init__.py").write_text("whose = 'somebody else'")
    script = f"""
import pipelines
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/clothing/1")
print(len(model.predict(pd.DataFrame({{"image": [{photo(40, 50)!r}]}}))), pipelines.whose)
"""

    assert run_elsewhere(script, registry, tmp_path / "elsewhere") == "1 somebody else"


def test_models_with_other_code_live_in_one_process(
    registry: Registry, training: Training, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(training, params, PHOTO)
    other = tmp_path / "other" / "pipelines"
    shutil.copytree(PROJECT_ROOT / "pipelines", other, ignore=shutil.ignore_patterns("__pycache__"))
    images = other / "photos" / "decode.py"
    images.write_text(images.read_text().replace('save(file, "PNG")', 'save(file, "PNG", compress_level=0)'))
    monkeypatch.setattr(packing, "_SOURCE", other)
    registry.register(Training(training.folder, "dataset-0002", "e" * 40, ""), params, PHOTO)
    script = f"""
import sys
import mlflow, pandas as pd
photos = pd.DataFrame({{"image": [{photo(40, 50)!r}]}})
one, other = (mlflow.pyfunc.load_model(f"models:/clothing/{{number}}") for number in (1, 2))
sizes = [len(model.predict(photos)["mask"][0]) for model in (one, other, one)]
print(sizes[0] == sizes[2] < 2000 < sizes[1])
print(len({{name.partition(".")[0] for name in sys.modules if name.startswith("maskloop_model_")}}))
"""

    assert run_elsewhere(script, registry, tmp_path).split() == ["True", "2"]


def test_mlflow_serves_it(registry: Registry, training: Training, params: Params) -> None:
    registry.register(training, params, PHOTO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = str(Path(sys.executable).parent)  # MLflow looks for uvicorn there
    command = ["mlflow", "models", "serve", "-m", "models:/clothing/1", "--env-manager", "local", "-p", str(port)]
    environment = {
        **os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "MLFLOW_TRACKING_URI": registry.url,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    photos = [[base64.b64encode(data).decode()] for data in (photo(40, 50), turned_jpeg(20, 60))]
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", server)
            body = {"dataframe_split": {"columns": ["image"], "data": photos}}
            answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=120)
            bad = {"dataframe_split": {"columns": ["image"], "data": [["bm8gcGhvdG8="]]}}
            refused = httpx.post(f"http://127.0.0.1:{port}/invocations", json=bad, timeout=120)
        finally:
            os.killpg(server.pid, 15)

    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    assert [decoded(base64.b64decode(row["mask"])).shape for row in rows] == [(40, 50), (60, 20)]
    assert [region["label"] for region in json.loads(rows[0]["regions"])] == ["coat"]
    assert refused.status_code == 400
    assert "photo 0: the bytes are none of" in refused.text


def wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        assert server.poll() is None, "the server ended"
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    raise AssertionError(f"nothing answers at {address}")


def test_only_what_it_needs_is_packed_and_all_of_that_is_required(tmp_path: Path) -> None:
    code, package = pack_model_code(tmp_path, "pyfunc_model.py")

    files = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert "segmentation/model.py" in files
    assert not any(
        path.startswith(("local_stack", "labelstudio", "demo", "dataset", "training", "models")) for path in files
    )
    assert "pipelines." not in "".join(line for line in code.read_text().splitlines() if "import" in line)
    names = packages_distributions()
    required = {requirement.partition("==")[0] for requirement in pinned_requirements()}
    for path in package.rglob("*.py"):
        for module in imports_of(path) - set(sys.stdlib_module_names) - {package.name} - _NEVER_CALLED:
            assert {name.lower().replace("_", "-") for name in names[module]} & required, (
                f"{path.name} imports {module}"
            )


def imports_of(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    return modules


def test_its_name_follows_from_the_code(tmp_path: Path) -> None:
    names = [pack_model_code(tmp_path / str(number), "pyfunc_model.py")[1].name for number in range(2)]

    assert names[0] == names[1]
    assert all("==" in requirement and "+" not in requirement for requirement in pinned_requirements())
