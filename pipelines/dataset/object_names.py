"""The names of objects: DVC names a file by the MD5 of its bytes, and a folder's list by the same and `.dir`."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

PREFIX = "dvc/files/md5/"  # of all objects on the remote
FOLDER_LIST = ".dir"  # ends the name of an object that lists the files of a folder


def remote_name(md5: str) -> str:
    """Return an object's name in the bucket of the remote."""
    return f"{PREFIX}{md5[:2]}/{md5[2:]}"


def is_named(data: bytes, md5: str) -> bool:
    """Return whether these are the bytes of an object."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == md5.removesuffix(FOLDER_LIST)


def is_object(path: Path, md5: str) -> bool:
    """Return whether a file holds the bytes of an object."""
    return md5_of(path) == md5.removesuffix(FOLDER_LIST)


def md5_of(path: Path) -> str:
    """Return the MD5 of a file's bytes in hex; an empty text when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError:
        return ""


def listed_md5(md5: str) -> str:
    """Return the MD5 as a bucket lists it (base64), for a name in hex with or without `.dir`."""
    return base64.b64encode(bytes.fromhex(md5.removesuffix(FOLDER_LIST))).decode()


def by_md5(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the paths of each object, sorted."""
    paths: dict[str, list[str]] = {}
    for path, md5 in sorted(files.items()):
        paths.setdefault(md5, []).append(path)
    return paths
