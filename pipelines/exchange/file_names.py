"""Portable file names for exported photos: every system and every common reader can keep them apart.

An object of a bucket may be called anything. A name here has letters, marks and digits of any script and a few signs;
it is in NFC, has at most 190 bytes without its suffix, and differs from all others also where a file system ignores
case or composition, as those of Windows and macOS do.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

_MAX_BYTES = 190  # a suffix follows; file systems take 255
_SIGNS = frozenset("-_+=@,()~")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
_HASH_DIGITS = 12


def file_stems(uris: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Return a file name without suffix for each photo, from its object's name.

    Photos whose objects' names would be the same file are told apart by the SHA-256 of their contents, in `hashes`.
    The names depend on all photos given, and not on their order.
    """
    stems = [portable(PurePosixPath(uri).stem) for uri in uris]
    counts = Counter(map(_key, stems))
    taken = {_key(stem) for stem in stems if counts[_key(stem)] == 1}
    names = dict(enumerate(stems))
    for number in sorted(names, key=lambda number: (hashes[number], uris[number])):
        if counts[_key(stems[number])] > 1:
            names[number] = _untaken(stems[number], hashes[number], taken)
            taken.add(_key(names[number]))
    return [names[number] for number in range(len(stems))]


def portable(text: str) -> str:
    """Return a text as a file name without suffix; other characters than those above become underscores.

    So do dots, because many readers look for `NAME.*`, and what stands for a device on Windows gets one in front.
    """
    composed = unicodedata.normalize("NFC", text)
    signs = "".join(sign if sign in _SIGNS or unicodedata.category(sign)[0] in "LMN" else "_" for sign in composed)
    name = _shortened(re.sub(r"^[-~=+@,]", "_", signs) or "_", _MAX_BYTES)
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def _shortened(name: str, max_bytes: int) -> str:
    return name.encode()[:max_bytes].decode(errors="ignore")


def _untaken(stem: str, sha256: str, taken: set[str]) -> str:
    """Return a name with so many digits of the hash that nobody has it, and with a number where even that is taken."""
    endings = [
        f"-{sha256[:_HASH_DIGITS]}",
        f"-{sha256}",
        *(f"-{sha256}-{number}" for number in range(2, len(taken) + 3)),
    ]
    names = (f"{_shortened(stem, _MAX_BYTES - len(ending))}{ending}" for ending in endings)
    return next(name for name in names if _key(name) not in taken)


def _key(name: str) -> str:
    """Return what is equal for names that are one file where case and composition do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
