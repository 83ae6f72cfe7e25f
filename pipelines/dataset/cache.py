"""The local DVC cache: files lie under the MD5 of their bytes, folders under that of the list of their files."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import DatasetError
from pipelines.fs import write_atomically
from pipelines.settings import Settings

_READ_ONLY = 0o444  # as DVC leaves what it keeps: it may be one file with that in the workspace


def path_in_cache(settings: Settings, name: str) -> Path:
    """Give where the object of a name lies, if it is there."""
    return settings.var / "dvc-cache" / "files" / "md5" / name[:2] / name[2:]


def read_folder(settings: Settings, name: str) -> dict[str, str]:
    """Give the MD5 of each file of a folder, by its name; raises DatasetError when the cache has no such list."""
    path = path_in_cache(settings, name)
    try:
        return {str(one["relpath"]): str(one["md5"]) for one in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"the DVC cache has no readable {path}; run `dvc fetch` in the workspace") from error


def keep_folder(settings: Settings, files: Mapping[str, str]) -> str:
    """Keep the list of a folder's files, given as `read_folder` gives them; gives its name."""
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    data = json.dumps(listed, sort_keys=True).encode()
    name = f"{md5_of(data)}.dir"
    if not path_in_cache(settings, name).exists():
        write_atomically(path_in_cache(settings, name), data)
        path_in_cache(settings, name).chmod(_READ_ONLY)
    return name


def keep_file(settings: Settings, file: Path) -> tuple[str, int]:
    """Keep a file of the workspace, which becomes one with the cache's where a link can be made; gives MD5 and size."""
    data = file.read_bytes()
    name = md5_of(data)
    kept = path_in_cache(settings, name)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{kept.name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(file, part)
            part.replace(kept)
        except OSError:  # another disk, or a file system without links
            write_atomically(kept, data)
        kept.chmod(_READ_ONLY)
    return name, len(data)


def md5_of(data: bytes) -> str:
    """Give the MD5 in hex, which here names bytes and protects nothing."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
