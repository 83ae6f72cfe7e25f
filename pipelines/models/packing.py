"""The code that a registered model carries: the few modules it needs, as a package of its own name.

Under the project's name they would be shadowed: wherever another package `pipelines` is imported already, in the
project itself or in somebody else's, Python would take that one's code for the model's. The name holds a hash of the
code, so that models of several versions live in one process, each with its own.
"""

import ast
import re
from importlib.metadata import version
from pathlib import Path

from pipelines.photos.decode import sha256_hex

MODEL_CODE = "pyfunc_model.py"
PACKAGE = "pipelines"
_SOURCE = Path(__file__).resolve().parents[1]
_IMPORT = re.compile(rf"^(\s*(?:from|import)\s+){PACKAGE}(?=[.\s])", re.MULTILINE)
_REQUIRED = (
    "torch", "openvino", "segmentation-models-pytorch", "timm", "safetensors", "opencv-python-headless", "pillow",
    "pydantic", "pyyaml", "numpy", "pandas",
)  # fmt: skip


def pack_model_code(folder: Path) -> tuple[Path, Path]:
    """Write the model's code and the package that it imports into a folder; gives both paths."""
    entry = _SOURCE / "models" / MODEL_CODE
    files = _needed_by(entry)
    texts = {str(file.relative_to(_SOURCE)): file.read_text(encoding="utf-8") for file in files}
    content = "\0".join(f"{path}\0{text}" for path, text in sorted(texts.items()))
    name = f"maskloop_model_{sha256_hex(content.encode())[:12]}"
    for path, text in texts.items():
        _write(folder / name / path, text, name)
    return _write(folder / MODEL_CODE, entry.read_text(encoding="utf-8"), name), folder / name


def pinned_requirements() -> list[str]:
    """Return the packages that a model needs, each in the version that is installed here."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIRED]  # PyPI knows no «+cpu»


def _write(path: Path, text: str, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_IMPORT.sub(rf"\g<1>{name}", text), encoding="utf-8")
    return path


def _needed_by(entry: Path) -> set[Path]:
    """Return the files of this project that a module imports, and what they import, and their packages' own files."""
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        for file in _imported_by(waiting.pop()) - found:
            found.add(file)
            waiting.append(file)
    return found


def _imported_by(path: Path) -> set[Path]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files: set[Path] = set()
    for parts in (module.split(".") for module in modules):
        if parts[0] == PACKAGE:
            module = _SOURCE.joinpath(*parts[1:])
            packages = [_SOURCE.joinpath(*parts[1:count]) / "__init__.py" for count in range(1, len(parts) + 1)]
            files |= {file for file in (*packages, module.with_suffix(".py")) if file.is_file()}
    return files
