"""Which checkpoint a setting names, and what embeddings are named after."""

import hashlib
import os
from pathlib import Path

import pytest

from pipelines.errors import ModelError
from pipelines.segmentation import sam_checkpoints
from pipelines.segmentation.sam_checkpoints import (
    AUTOMATIC,
    OFFICIAL,
    Machine,
    automatic,
    checked_sha256,
    checkpoint_of,
    embeddings_names,
    expected_sha256,
    is_off,
    local_checkpoint,
    this_machine,
)

REVISION = "de431c4043854a71d8101e17995dfe596bf101a5"


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_come_from_their_publishers_and_carry_a_whole_digest(name: str) -> None:
    *_, weights = OFFICIAL[name]
    assert weights.address.startswith(("https://dl.fbaipublicfiles.com/", "https://huggingface.co/facebook/"))
    assert len(bytes.fromhex(weights.sha256)) == 32


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_digits_in_an_official_name_are_no_sha256(name: str, tmp_path: Path) -> None:
    chosen = checkpoint_of(name, tmp_path)
    digits = chosen.name.partition("-")[2]
    assert chosen.path.name.endswith(f"_{digits}.pth")
    assert not expected_sha256(chosen).startswith(digits)
    assert expected_sha256(checkpoint_of(str(chosen.path), tmp_path)) == OFFICIAL[name][0].sha256


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Machine(gpu_gb=24, memory_gb=64, threads=16), "sam2.1_large"),
        (Machine(gpu_gb=8, memory_gb=16, threads=4), "sam2.1_large"),
        (Machine(gpu_gb=6, memory_gb=2, threads=2), "sam2.1_base_plus"),
        (Machine(gpu_gb=0, memory_gb=64, threads=32), "sam2.1_base_plus"),
        (Machine(gpu_gb=2, memory_gb=16, threads=8), "sam2.1_small"),
        (Machine(gpu_gb=0, memory_gb=64, threads=2), "sam2.1_tiny"),
        (Machine(gpu_gb=0, memory_gb=4, threads=16), "sam2.1_tiny"),
        (Machine(gpu_gb=0, memory_gb=2, threads=16), ""),
    ],
)
def test_the_machine_decides_what_auto_is(machine: Machine, name: str) -> None:
    assert automatic(machine) == name
    assert name in ("", *AUTOMATIC)


def test_auto_takes_what_fits_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_machine().memory_gb > 0
    monkeypatch.setattr(sam_checkpoints, "this_machine", lambda: Machine(0, 16, 2))
    chosen = checkpoint_of("auto", tmp_path)
    assert (chosen.family, chosen.path) == (2, tmp_path / "checkpoints" / "sam2.1_tiny-48c14467")
    monkeypatch.setattr(sam_checkpoints, "this_machine", lambda: Machine(0, 1.5, 2))
    with pytest.raises(ModelError, match=r"1\.5 GB of memory .*MASKLOOP_SAM_CHECKPOINT=none"):
        checkpoint_of("auto", tmp_path)


def test_of_auto_the_checkpoint_that_was_downloaded_last_is_there(tmp_path: Path) -> None:
    """The service that downloads it may have another share of the machine than a training."""
    assert local_checkpoint("auto", tmp_path) is None
    for at, name in enumerate(("sam2.1_large", "sam2.1_tiny")):
        chosen = checkpoint_of(name, tmp_path)
        chosen.folder.mkdir(parents=True)
        (chosen.folder / "config.json").touch()
        assert local_checkpoint(name, tmp_path) is None, "the weights are not there yet"
        (chosen.folder / "model.safetensors").touch()
        os.utime(chosen.folder, (at, at))
        assert local_checkpoint("auto", tmp_path) == local_checkpoint(name, tmp_path) == chosen


def test_a_pinned_name_of_hugging_face_is_downloaded_at_that_revision(tmp_path: Path) -> None:
    chosen = checkpoint_of(f"owner/my-sam@{REVISION}", tmp_path)
    assert chosen.path == tmp_path / "checkpoints" / "owner_my-sam-de431c40"
    assert [file.address for file in chosen.files] == [
        f"https://huggingface.co/owner/my-sam/resolve/{REVISION}/{name}"
        for name in ("config.json", "model.safetensors")
    ]


@pytest.mark.parametrize("setting", ["owner/my-sam", "owner/my-sam@main", "vit_x", "sam_vit_b_01ec.pth"])
def test_what_cannot_be_checked_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not named like an official checkpoint .*sam2.1_tiny.*owner/name@revision"):
        checkpoint_of(setting, tmp_path)


def test_a_folder_is_named_after_its_weights(tmp_path: Path) -> None:
    (folder := tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match=r"mine has no model\.safetensors"):
        checkpoint_of(str(folder), tmp_path)
    (folder / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert checkpoint_of(str(folder), tmp_path).name == f"mine-{digest[:8]}"
    assert checked_sha256(folder / "model.safetensors", digest[:6]) == digest


@pytest.mark.parametrize("setting", ["", "none", " None "])
def test_a_setting_that_is_off_has_no_embeddings(setting: str) -> None:
    assert is_off(setting)
    assert embeddings_names(setting) == ()


def test_embeddings_are_named_after_the_checkpoint() -> None:
    assert embeddings_names("vit_b") == ("vit_b-01ec64",)
    assert embeddings_names("auto") == (
        "sam2.1_tiny-48c14467", "sam2.1_small-0a4067b1", "sam2.1_base_plus-2012733a", "sam2.1_large-dc407dce",
    )  # fmt: skip
