"""Formats of labelled photos that the import reads. A new format is one new module and one line below."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pipelines.errors import ConfigurationError, DataError
from pipelines.exchange.label_names import LabelNames
from pipelines.exchange.labelled_photos import LabelledPhotos

# By name the module whose `is_format(path)` recognises a format and whose `read(path, names)` reads it.
FORMATS: Mapping[str, str] = {
    "png": "pipelines.exchange.readers.png",
    "voc": "pipelines.exchange.readers.voc",
    "yolo": "pipelines.exchange.readers.yolo",
    "coco": "pipelines.exchange.readers.coco",
    "cvat": "pipelines.exchange.readers.cvat",
    "labelstudio": "pipelines.exchange.readers.labelstudio",
    "huggingface": "pipelines.exchange.readers.huggingface",
}


def read_labelled_photos(path: Path, names: LabelNames, form: str = "") -> LabelledPhotos:
    """Read a folder, or an annotation file in one, in the format `form`; without one it is recognised.

    Raise ConfigurationError when it is none or several of the formats, and what the reader raises.
    """
    if form and form not in FORMATS:
        raise ConfigurationError(f"there is no format {form!r}; give one of {', '.join(FORMATS)}")
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist; give a folder of labelled photos")
    source: LabelledPhotos = _module(form or recognise(path)).read(path, names)
    if not source.take(0, 1):
        reasons = "; ".join(f"{len(texts)} {what}, such as {texts[0]}" for what, texts in source.left_out().items())
        raise ConfigurationError(
            f"{path} has no photo with a mask{f': {reasons}' if reasons else ''}; check the folder"
        )
    return source


def recognise(path: Path) -> str:
    """Return the name of the format; raise ConfigurationError when it is none or several of them."""
    forms, broken = [], []
    for form in FORMATS:
        try:
            if _module(form).is_format(path):
                forms.append(form)
        except DataError as error:
            broken.append(str(error))
    if len(forms) == 1:
        return forms[0]
    if forms:
        raise ConfigurationError(f"{path} may be {' or '.join(forms)}; say which with --format")
    damaged = f" ({'; '.join(dict.fromkeys(broken))})" if broken else ""
    raise ConfigurationError(f"{path} is in none of the formats {', '.join(FORMATS)}{damaged}; say which with --format")


def _module(form: str) -> ModuleType:
    return importlib.import_module(FORMATS[form])
