"""Both bentos, built by BentoML without a network, and one of them answering a click from its own files alone."""

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from google.cloud.storage import Client
from PIL import Image

from pipelines.gcs.client import ensure_bucket, put
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.settings import PROJECT_ROOT
from tests.conftest import free_ports

SERVICES = {"segmentation": "Segmentation", "segment_anything": "SegmentAnything"}
BIN = Path(sys.executable).parent
# Called by nothing that serves: the hash that finds near-duplicates stands in the module that decodes photos.
NEVER_CALLED = {"imagehash"}
# For `maskloop exec`, which starts the services in the serving image; and torchvision, because segment-anything, which
# imports it, does not name it.
BESIDE = {"typer", "torchvision"}
GOOGLE = {"google.cloud": "google-cloud-storage", "google.auth": "google-auth", "google.api_core": "google-api-core"}
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
local = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("bentos", "pipelines")}
print(*{file for file in local.values() if file}, sep="\\n")
"""


@dataclass(frozen=True)
class Bento:
    """A built bento: its folder, its tag, and the BENTOML_HOME that it is in."""

    folder: Path
    tag: str
    home: Path

    @property
    def source(self) -> Path:
        return self.folder / "src"

    def modules(self) -> set[str]:
        files = (path.relative_to(self.source) for path in self.source.rglob("*.py"))
        return {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}


def offline(home: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which nothing but this machine can be reached."""
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere, "NO_PROXY": "127.0.0.1,localhost", **variables,
    }  # fmt: skip


@pytest.fixture(scope="module", params=SERVICES)
def bento(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bento:
    return build(request.param, tmp_path_factory.mktemp("bentoml"))


def build(name: str, home: Path) -> Bento:
    command = [BIN / "bentoml", "build", "-f", f"bentos/{name}/bentofile.yaml", "-o", "tag", "."]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=offline(home), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [tag] = re.findall(r"__tag__:(\S+)", done.stdout)
    return Bento(home / "bentos" / tag.replace(":", "/"), tag, home)


def bentofile(bento: Bento) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((bento.source / "bentofile.yaml").read_text(encoding="utf-8"))
    return document


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^([\w.-]+==[^ ;\n]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def reached(module: str) -> tuple[set[str], set[str]]:
    """Follow all imports, those inside functions as well; return our modules and the top names of others'."""
    waiting, local, others = {module}, set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        path = PROJECT_ROOT.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in local or not file.exists():
            continue
        local.add(name)
        named = {name.rpartition(".")[0]}
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        waiting |= {name for name in named if name.split(".")[0] in ("bentos", "pipelines")}
        others |= {name for name in named if name} - waiting
    return local, {
        name for name in others if name.split(".")[0] not in {*sys.stdlib_module_names, "bentos", "pipelines"}
    }


def test_it_holds_the_code_that_the_service_needs_and_no_other_folder(bento: Bento) -> None:
    needed, _ = reached(bentofile(bento)["service"].partition(":")[0])
    held = bento.modules()
    assert needed <= held
    folders = {name.rpartition(".")[0] for name in held}
    assert {folder for folder in folders if folder and not {n for n in needed if n.startswith(folder)}} == set()
    others = {path.relative_to(bento.source).as_posix() for path in bento.source.rglob("*") if path.is_file()}
    assert {name for name in others if not name.endswith(".py")} == {
        "LICENSE",
        "NOTICE",
        "bentofile.yaml",
        "params.yaml",
    }


def test_its_modules_are_imported_from_itself(bento: Bento, tmp_path: Path) -> None:
    needed, _ = reached(bentofile(bento)["service"].partition(":")[0])
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *sorted(needed)],
        cwd=tmp_path,
        env=offline(bento.home, PYTHONPATH=str(bento.source)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {line for line in done.stdout.splitlines() if not line.startswith(f"{bento.source}/")} == set()


def test_its_packages_are_those_of_the_serving_image(bento: Bento) -> None:
    locked = PROJECT_ROOT / "requirements" / "serving.txt"
    assert bentofile(bento)["python"]["requirements_txt"] == "requirements/serving.txt"
    assert pins(bento.folder / "env" / "python" / "requirements.txt") == pins(locked)
    assert not any(pin.startswith(("apache-airflow", "dvc=", "great-expectations", "mlflow=")) for pin in pins(locked))
    dockerfile = (PROJECT_ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"COPY requirements/(\S+)\.txt", dockerfile) == ["bootstrap", "serving", "airflow"]
    text = (bento.folder / "env" / "python" / "requirements.txt").read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") == locked.read_text(encoding="utf-8").count("--hash=sha256:")


def test_the_image_that_bentoml_containerize_builds(bento: Bento) -> None:
    """Docker is not started for this; the file is what `containerize` hands to it."""
    text = (bento.folder / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    [local] = re.findall(
        r"^ARG PYTHON=(\S+)$", (PROJECT_ROOT / "deploy" / "Dockerfile").read_text("utf-8"), re.MULTILINE
    )
    [base] = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert base == local
    assert "uv venv --python 3.11" in text
    assert "pip install -r $BENTO_PATH/env/python/requirements.txt" in text
    assert "USER bentoml" in text
    assert (bento.folder / "env" / "docker" / "entrypoint.sh").stat().st_mode & 0o444


def test_the_lock_of_both_names_what_they_import_and_nothing_else() -> None:
    lines = (PROJECT_ROOT / "requirements" / "serving.in").read_text(encoding="utf-8").splitlines()
    declared = {line for line in lines if not line.startswith("#")}
    modules = set().union(*(reached(f"bentos.{name}.service")[1] for name in SERVICES))
    names = {
        ".".join(module.split(".")[:2]) if module.startswith("google") else module.split(".")[0] for module in modules
    }
    packages = packages_distributions()
    providers = {
        name: {GOOGLE[name]} if name in GOOGLE else {package.lower().replace("_", "-") for package in packages[name]}
        for name in names - NEVER_CALLED
    }
    assert {name: some for name, some in providers.items() if not some & declared} == {}
    assert declared - set().union(*providers.values()) == BESIDE


@pytest.fixture
def photo(bucket_client: Client, tmp_path: Path) -> dict[str, Any]:
    """A photo with a red coat in a bucket of its own, as a task."""
    pixels = np.full((360, 240, 3), 120, np.int16)
    pixels[40:160, 20:120] = 200, 30, 30
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    path = tmp_path / "coat.png"
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path)
    ensure_bucket(bucket_client, "built-bento")
    reference = put(bucket_client, "built-bento", "photos/coat.png", path.read_bytes(), "image/png")
    return {"id": 1, "data": {"image": reference.uri, "generation": str(reference.generation)}}


@pytest.fixture
def served(tmp_path: Path, bucket_server: str) -> Iterator[httpx.Client]:
    """`bentoml serve` of the click service's bento, in an empty folder."""
    bento = build("segment_anything", tmp_path / "bentoml")
    [port] = free_ports(1)
    environment = offline(
        bento.home, MASKLOOP_VAR=str(tmp_path / "var"), MASKLOOP_STORAGE_PORT=bucket_server.rsplit(":", 1)[1],
        MASKLOOP_SOURCE_BUCKET="built-bento", MASKLOOP_SAM_CHECKPOINT="", MASKLOOP_SEGMENTATION_URL="http://127.0.0.1:9",
    )  # fmt: skip
    command = [BIN / "bentoml", "serve", bento.tag, "--host", "127.0.0.1", "--port", str(port)]
    (tmp_path / "empty").mkdir()
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path / "empty", env=environment, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        try:
            for _ in range(240):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
            yield client
        finally:
            process.terminate()


def test_a_built_bento_answers_a_click(served: httpx.Client, photo: dict[str, Any]) -> None:
    assert served.get("/health").json()["model_version"] == "grabcut"
    value = {"x": 29, "y": 28, "width": 0.5, "keypointlabels": ["coat"]}
    prompt = {"type": "keypointlabels", "value": value, "is_positive": True}

    answer = served.post("/predict", json={"tasks": [photo], "params": {"context": {"result": [prompt]}}}).json()

    [[region]] = [item["result"] for item in answer["results"]]
    mask, coat = rle_to_mask(region["value"]["rle"], 360, 240), np.zeros((360, 240), bool)
    coat[40:160, 20:120] = True
    assert (mask & coat).sum() / (mask | coat).sum() > 0.9
