"""Which Segment Anything checkpoints there are, where their files come from, and which one fits a machine.

Kirillov et al., "Segment Anything" (2023), and Ravi et al., "SAM 2: Segment Anything in Images and Videos" (2024). All
official weights are under the Apache License 2.0. The hexadecimal digits in `sam_vit_b_01ec64.pth` are the start of the
file's MD5, so official files are checked with the SHA-256 below. Other files are named after their own SHA-256.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ModelError

AUTO, OFF = "auto", "none"
LICENSE = "Apache-2.0"
WEIGHTS, CONFIG = "model.safetensors", "config.json"  # of SAM 2, as transformers stores it
_SAM_1 = "https://dl.fbaipublicfiles.com/segment_anything"
_HUB = "https://huggingface.co"
_NAME = re.compile(r"sam_(vit_[blh])_([0-9a-f]{6,64})\.pth$")
_PINNED = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


@dataclass(frozen=True)
class RemoteFile:
    """A file to download; `sha256` is its digest, empty for a small configuration of a pinned revision."""

    name: str
    address: str
    sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: `family` is 1 or 2, `name` is what its embeddings are named after.

    `path` is the file of SAM 1 or the folder of SAM 2; `files` is empty where nothing has to be downloaded.
    """

    family: int
    name: str
    path: Path
    files: tuple[RemoteFile, ...] = ()

    @property
    def folder(self) -> Path:
        """Return the folder that its files are in."""
        return self.path.parent if self.family == 1 else self.path

    @property
    def is_complete(self) -> bool:
        """Return whether nothing has to be downloaded."""
        return all((self.folder / file.name).exists() for file in self.files)


def _sam_1(file: str, sha256: str) -> tuple[RemoteFile, ...]:
    return (RemoteFile(file, f"{_SAM_1}/{file}", sha256),)


def _sam_2(repository: str, revision: str, weights: str = "", config: str = "") -> tuple[RemoteFile, ...]:
    address = f"{_HUB}/{repository}/resolve/{revision}"
    return RemoteFile(CONFIG, f"{address}/{CONFIG}", config), RemoteFile(WEIGHTS, f"{address}/{WEIGHTS}", weights)


OFFICIAL = {
    "vit_b": _sam_1("sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "vit_l": _sam_1("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_h": _sam_1("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    "sam2.1_tiny": _sam_2(
        "facebook/sam2.1-hiera-tiny", "de431c4043854a71d8101e17995dfe596bf101a5",
        "48c14467e5cf9e51870511feb72c89688e82dd74523142c0538b663e193ac2a7",
        "860aff9751b139d83a4ad7df1e5535416fded533e0ead02625edbefcb9953cce",
    ),
    "sam2.1_small": _sam_2(
        "facebook/sam2.1-hiera-small", "ee5bba1d82bb8749febdf90f45e84b687142ba03",
        "0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60",
    ),
    "sam2.1_base_plus": _sam_2(
        "facebook/sam2.1-hiera-base-plus", "b7320756a13354e7530a63935656d35b2f91a290",
        "2012733a0de5d03efd1bba550a2847c4551be9ef2e0d497c83074df66189f780",
    ),
    "sam2.1_large": _sam_2(
        "facebook/sam2.1-hiera-large", "665f8e2ad61cf5f53d65644ff27c8ee525124610",
        "dc407dce21301fd94abb395c5099b4f2c455fdc8a8f261ac3d0ea6d4cd197230",
        "00446988cf4d617118d2d347eabe2c46aebed744628facdd540508be30b69ec3",
    ),
}  # fmt: skip
AUTOMATIC = ("sam2.1_tiny", "sam2.1_small", "sam2.1_base_plus", "sam2.1_large")  # what `auto` may choose


@dataclass(frozen=True)
class Machine:
    """What decides about the checkpoint: memory in GB of the GPU (0 without one) and of the machine, CPU threads."""

    gpu_gb: float
    memory_gb: float
    threads: int


def this_machine() -> Machine:
    """Return what this process may use; a container's limit of memory counts."""
    import psutil
    import torch

    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    memory = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        memory = min(memory, int(text))
    return Machine(gpu / 1e9, memory / 1e9, torch.get_num_threads())


def automatic(machine: Machine) -> str:
    """Return the name in `OFFICIAL` of the checkpoint for a machine, or an empty text when its memory is too small.

    docs/segment-anything.md has the table and its reasons.
    """
    if machine.gpu_gb >= 8:
        return "sam2.1_large"
    if machine.gpu_gb >= 4:
        return "sam2.1_base_plus"
    if machine.memory_gb < 3:
        return ""
    if machine.threads >= 16 and machine.memory_gb >= 15:
        return "sam2.1_base_plus"
    return "sam2.1_small" if machine.threads >= 4 and machine.memory_gb >= 7 else "sam2.1_tiny"


def is_off(setting: str) -> bool:
    """Return whether the setting turns Segment Anything off."""
    return setting.strip().lower() in ("", OFF)


def checkpoint_of(setting: str, folder: Path) -> Checkpoint:
    """Return the checkpoint that the setting names; what is downloaded goes into the folder `checkpoints` of `folder`.

    `setting` is a name of `OFFICIAL`, `auto`, the path of a SAM 1 file, the folder of a SAM 2 model of transformers, or
    `owner/name@revision` of one on Hugging Face. Raises ModelError for anything else, and where `auto` finds too little
    memory.
    """
    name = setting
    if setting == AUTO and not (name := automatic(machine := this_machine())):
        raise ModelError(
            f"this machine has {machine.memory_gb:.1f} GB of memory and Segment Anything needs 3; GrabCut goes on "
            f"answering, and MASKLOOP_SAM_CHECKPOINT={OFF} says that this is wanted"
        )
    if name in OFFICIAL:
        return _official(name, folder / "checkpoints")
    if (path := Path(setting).expanduser()).is_dir():
        return Checkpoint(2, f"{path.name}-{_digest_of_weights(path)[:8]}", path)
    if match := _PINNED.fullmatch(setting):
        embeddings = f"{match[1].replace('/', '_')}-{match[2][:8]}"
        return Checkpoint(2, embeddings, folder / "checkpoints" / embeddings, _sam_2(match[1], match[2]))
    kind, digits = _named(path)
    return Checkpoint(1, f"{kind}-{digits}", path)


def local_checkpoint(setting: str, folder: Path) -> Checkpoint | None:
    """Return the checkpoint of a setting whose files are on this machine, None without them; see `checkpoint_of`.

    Of `auto` it is the one that was downloaded last: the service, which downloads it, may have another share of the
    machine than the process that asks.
    """
    names = AUTOMATIC if setting == AUTO else (setting,)
    known = (checkpoint_of(name, folder) for name in names)
    complete = [checkpoint for checkpoint in known if checkpoint.path.exists() and checkpoint.is_complete]
    return max(complete, key=lambda checkpoint: checkpoint.path.stat().st_mtime, default=None)


def embeddings_names(setting: str) -> tuple[str, ...]:
    """Return what the embeddings of a setting's checkpoint are named after: all that `auto` may choose, none when off.

    The process that asks need not run on the machine that encodes. Raises ModelError as `checkpoint_of`.
    """
    if is_off(setting):
        return ()
    names = AUTOMATIC if setting == AUTO else (setting,)
    return tuple(checkpoint_of(name, Path()).name for name in names)


def expected_sha256(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of SAM 1's file: the whole one for official files, else the digits in its name."""
    official = {files[0].name: files[0].sha256 for files in OFFICIAL.values()}
    return official.get(checkpoint.path.name) or _named(checkpoint.path)[1]


def checked_sha256(path: Path, expected: str) -> str:
    """Return a file's SHA-256; raise ModelError when it does not start with `expected`, or there is no such file."""
    if not path.is_file():
        raise ModelError(f"MASKLOOP_SAM_CHECKPOINT: there is no file {path}")
    if not (actual := file_sha256(path)).startswith(expected):
        raise ModelError(f"{path} has SHA-256 {actual[:12]}…, not {expected[:12]}…: it is damaged; download it again")
    return actual


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _official(name: str, folder: Path) -> Checkpoint:
    files = OFFICIAL[name]
    if len(files) == 1:
        return Checkpoint(1, "-".join(_named(Path(files[0].name))), folder / files[0].name, files)
    embeddings = f"{name}-{files[-1].sha256[:8]}"
    return Checkpoint(2, embeddings, folder / embeddings, files)


def _named(path: Path) -> tuple[str, str]:
    """Return the network and the digits in the name of a SAM 1 file."""
    match = _NAME.search(path.name)
    if not match:
        raise ModelError(
            f"{path} is not named like an official checkpoint (such as {OFFICIAL['vit_b'][0].name}), so it cannot be "
            f"checked; set MASKLOOP_SAM_CHECKPOINT to one, to {AUTO}, {OFF}, {', '.join(OFFICIAL)}, to the folder of a "
            "SAM 2 model, or to owner/name@revision of one with all 40 digits of the revision"
        )
    return match[1], match[2]


def _digest_of_weights(folder: Path) -> str:
    if not (weights := folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} has no {WEIGHTS}; MASKLOOP_SAM_CHECKPOINT takes folders of transformers' Sam2Model")
    return file_sha256(weights)
