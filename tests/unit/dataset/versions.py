"""Small dataset versions, written without stages: real git, DVC and bucket, photos, annotations and masks."""

import io
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from google.cloud.storage import Client
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MANIFEST, MASKS, PHOTOS, VERSION
from pipelines.dataset.object_names import is_named, is_object
from pipelines.dataset.objects import Objects
from pipelines.dataset.records import encode_mask
from pipelines.dataset.remote import needed_objects, push_and_audit
from pipelines.dataset.shards import shard_of
from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.params import load_params
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation, ImageRef

Annotate = Callable[..., Annotation]
DATA = (ANNOTATIONS, IMAGES, MASKS, PHOTOS, BEFORE, MANIFEST)


class Versions:
    """A workspace whose versions are written directly, and the archive that their photos come from."""

    def __init__(self, workspace: Workspace, bucket: Client, archive: str, annotate: Annotate) -> None:
        self.workspace, self.bucket, self.archive, self._annotate = workspace, bucket, archive, annotate
        self.dataset = Dataset(workspace.path)
        self._ids = load_params(workspace.path / "params.yaml").label_ids
        gcs.ensure_bucket(bucket, workspace.settings.dvc_bucket)
        workspace.git("rm", "--quiet", "--force", "dvc.yaml")  # its outputs are written here
        workspace.git("commit", "--quiet", "-m", "No stages")

    def write(self, shades: Mapping[int, Mapping[str, slice]]) -> None:
        """Write photos of these shades (0..255), each with labels that cover a range of its 30 rows."""
        rows, annotations, masks = [], [], {}
        for shade, labels in shades.items():
            image = self._upload(shade)
            annotations.append(self._annotate(f"annotation-{shade}", labels, image=image))
            mask = np.zeros((30, 20), np.uint8)
            for label, where in labels.items():
                mask[where] = self._ids[label]
            masks[image.sha256] = encode_mask(mask)
            pixels = {label: int(mask[where].size) for label, where in labels.items()}
            rows.append(
                {
                    "uri": image.uri, "generation": image.generation, "sha256": image.sha256, "height": 30, "width": 20,
                    "mask_sha256": sha256_hex(masks[image.sha256]), "label_pixels": str(pixels).replace("'", '"'),
                    "split": "train",
                }
            )  # fmt: skip
        wanted = {row["sha256"] for row in rows}
        for path in (self.workspace.path / IMAGES).iterdir():
            if path.name not in wanted:
                path.unlink()
        self.dataset.annotations.replace(annotations)
        shards = {shard: {p: m for p, m in masks.items() if shard_of(p) == shard} for shard in map(shard_of, masks)}
        for shard, held in shards.items():
            self.dataset.masks.write_shard(shard, held)
        self.dataset.masks.drop_others(shards)
        table = pd.DataFrame(rows)
        self.dataset.write_table(PHOTOS, table.drop(columns="split"))
        self.dataset.write_table(MANIFEST, table)
        (self.workspace.path / BEFORE).unlink(missing_ok=True)
        (self.workspace.path / BEFORE).write_bytes(b"")

    def _upload(self, shade: int) -> ImageRef:
        noise = np.random.default_rng(shade).integers(0, 40, (30, 20, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.uint8(shade // 2) + noise).save(file, "PNG")
        data = file.getvalue()
        ref = gcs.put(self.bucket, self.archive, f"photos/{shade}.png", data, "image/png")
        sha256 = sha256_hex(data)
        if not self.dataset.image_path(sha256).exists():
            self.dataset.write_photo(sha256, data)
        return ImageRef(ref.uri, ref.generation, sha256, 30, 20)

    def add(self) -> None:
        """Let DVC record what was written."""
        self.workspace.dvc("add", *map(str, DATA))

    def needed(self) -> set[str]:
        """Return the objects of the workspace as it is now."""
        return needed_objects(self.workspace)

    def publish(self, *, record_remote: bool = False) -> str:
        """Record, push and tag what was written, and the remote's address; return the tag."""
        self.add()
        push_and_audit(self.workspace, self.bucket, everything=False)
        tag = f"dataset-{len(self.workspace.dataset_tags()) + 1:04d}"
        (self.workspace.path / VERSION).write_text(tag, encoding="utf-8")
        if record_remote:
            self.workspace.record_remote()
        self.workspace.git("add", "data", ".dvc/config")
        self.workspace.git("commit", "--quiet", "-m", tag)
        self.workspace.git("tag", "--annotate", tag, "-m", f"what {tag} changed")
        return tag

    @property
    def objects(self) -> Objects:
        """The objects in the cache and on the remote."""
        return Objects(self.workspace.settings, self.bucket)

    def cached(self) -> list[Path]:
        """Return every file of the cache, sorted."""
        return sorted(path for path in (self.objects.cache / "files").rglob("*") if path.is_file())

    def damaged_in_cache(self) -> list[Path]:
        """Return the files of the cache whose bytes are not those of their names."""
        return [path for path in self.cached() if not is_object(path, name_of(path))]

    def damaged_on_remote(self) -> list[str]:
        """Return the objects of the remote whose bytes are not those of their names."""
        refs = list(gcs.list_objects(self.bucket, self.workspace.settings.dvc_bucket, "dvc/files/md5/"))
        names = {ref.name: ref.name.removeprefix("dvc/files/md5/").replace("/", "") for ref in refs}
        return [ref.name for ref in refs if not is_named(gcs.read(self.bucket, ref), names[ref.name])]

    def remote(self, md5: str) -> bytes | None:
        """Return what the remote holds under an object's name."""
        ref = gcs.stat(self.bucket, self.workspace.settings.dvc_bucket, f"dvc/files/md5/{md5[:2]}/{md5[2:]}")
        return gcs.read(self.bucket, ref) if ref else None

    def put_remote(self, md5: str, data: bytes) -> None:
        """Write bytes under an object's name, whatever they are."""
        name = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
        gcs.put(self.bucket, self.workspace.settings.dvc_bucket, name, data, "application/octet-stream")

    def delete_remote(self, md5: str) -> None:
        """Delete an object."""
        ref = gcs.stat(self.bucket, self.workspace.settings.dvc_bucket, f"dvc/files/md5/{md5[:2]}/{md5[2:]}")
        assert ref is not None
        gcs.delete(self.bucket, ref)


def name_of(path: Path) -> str:
    """Return the MD5 name of a file of the cache."""
    return path.parent.name + path.name


def flip(path: Path, choices: random.Random, *, silently: bool) -> None:
    """Flip a bit of a file in place, as a disk does (`silently`: its time of change stays) or a program."""
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    if data:
        data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)
    else:
        data = bytearray(b"x")
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(0o444)
    if silently:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_some(paths: Sequence[Path], count: int, seed: int) -> list[Path]:
    """Flip `count` bits of these files, about half of them silently; return the files."""
    choices = random.Random(seed)
    chosen = [choices.choice(paths) for _ in range(count)]
    for path in chosen:
        flip(path, choices, silently=choices.random() < 0.5)
    return chosen
