"""The code that a registered model carries: the few modules it needs, as a package with a name of its own.

Under the project's name they could be shadowed: where another package `pipelines` is already imported, in this project
or in somebody else's, Python would use that one instead. The name holds a hash of the code, so that models of several
versions can run in one process, each with its own code.
"""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from pipelines.photos.decode import sha256_hex

PACKAGE = "pipelines"
_SOURCE = Path(__file__).resolve().parents[1]
_IMPORT = re.compile(rf"^(\s*(?:from|import)\s+){PACKAGE}(?=[.\s])", re.MULTILINE)
_REQUIRED = (
    "torch", "openvino", "segmentation-models-pytorch", "timm", "safetensors", "opencv-python-headless", "pillow",
    "pi-heif", "pydantic", "pyyaml", "numpy", "pandas",
)  # fmt: skip


def pack_model_code(folder: Path, code: str) -> tuple[Path, Path]:
    """Write a model's code, a module's file in this package, and what it imports into a folder; return both paths."""
    entry = _SOURCE / "models" / code
    files = _required_files(entry)
    texts = {str(file.relative_to(_SOURCE)): file.read_text(encoding="utf-8") for file in files}
    content = "\0".join(f"{path}\0{text}" for path, text in sorted(texts.items()))
    name = f"maskloop_model_{sha256_hex(content.encode())[:12]}"
    for path, text in texts.items():
        _write(folder / name / path, text, name)
    return _write(folder / code, entry.read_text(encoding="utf-8"), name), folder / name


def pinned_requirements() -> list[str]:
    """Return the requirements of a model: each package in the version that is installed here."""
    return [
        f"{name}=={version(name).partition('+')[0]}" for name in _REQUIRED
    ]  # PyPI has no versions such as 2.14.1+cpu


def _write(path: Path, text: str, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_IMPORT.sub(rf"\g<1>{name}", text), encoding="utf-8")
    return path


def _required_files(entry: Path) -> set[Path]:
    """Return the files of this project that a module imports, directly or not, with their packages' `__init__.py`."""
    required: set[Path] = set()
    unread = [entry]
    while unread:
        for file in _imported_files(unread.pop()) - required:
            required.add(file)
            unread.append(file)
    return required


def _imported_files(path: Path) -> set[Path]:
    modules = []
    for node in _runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
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


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below this one but those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield child
            yield from _runtime_nodes(child)
