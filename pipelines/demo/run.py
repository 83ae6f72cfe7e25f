"""`maskloop demo`: whole rounds of the loop through real Airflow runs, with simulated labelers in Label Studio."""

import json
import math
import mimetypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.airflow_api import Airflow
from pipelines.contract import INGEST_DAG, LABEL_STUDIO, PRELABEL_DAG, RETRAIN_DAG, SYNC_DAG
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.demo.archive import Archive, SyntheticArchive
from pipelines.demo.labelers import Labeler, label_everything
from pipelines.demo.savings import Saving, draw_savings, saving_of
from pipelines.demo.training import STEPS, use_small_training
from pipelines.errors import ConfigurationError
from pipelines.exchange.masked_photos import masked_photos
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.local_stack.lifecycle import addresses, up
from pipelines.params import Params, load_params
from pipelines.photos.decode import sha256_hex
from pipelines.records import ModelVersion
from pipelines.reports.effort import effort_of
from pipelines.segmentation.sam_checkpoints import OFF
from pipelines.settings import Settings, get_settings
from pipelines.training.clicks_pipeline import measured_clicks

if TYPE_CHECKING:
    from pipelines.models.registry import Registry

_LABELERS = 3
_NEXT_PHOTOS = 12  # pre-labelled at the end and left open, for people to see


@dataclass(frozen=True)
class Round:
    """Results of one round; seconds are labelers' seconds per photo, None where no photo was labelled in that way.

    `prelabel_miou` compares the masks that were shown with what was submitted. The results depend on photos, masks and
    weights alone, not on who labelled what and when, so that they are the same in every run.
    """

    tasks: int
    annotations: int
    dataset: str
    model: str
    promoted: bool
    steps: str
    test_miou: float
    prelabel_miou: float | None
    untouched_share: float
    seconds_per_photo: float
    seconds_with_masks: float | None
    seconds_without_masks: float | None
    click_model: str = ""
    clicks: float | None = None  # per garment to an IoU of 0.85, with the click model of this round
    clicks_of_grabcut: float | None = None
    clicks_answered_by: str = "grabcut"
    photos_with_masks: int = 0
    saved_minutes: float | None = None  # per photo that had masks, against drawing all of it
    saved_minutes_low: float | None = None  # of the 95 % interval of this mean
    saved_minutes_high: float | None = None
    seconds_by_hand: float = 0.0  # of a photo, if all of it were drawn

    @property
    def saving(self) -> Saving:
        """Return what masks saved in this round."""
        ends = self.saved_minutes, self.saved_minutes_low, self.saved_minutes_high
        return Saving(self.photos_with_masks, *ends, self.seconds_per_photo, self.seconds_by_hand)


def sizes_of_rounds(count: int, rounds: int, least: int) -> list[int]:
    """Return how many new photos each round has: later rounds have more, and none has fewer than `least`.

    Raises ConfigurationError when there are too few photos for that.
    """
    if count < least * rounds:
        raise ConfigurationError(
            f"a round of {count // rounds} photos is too small for a training: retrain.min_new_annotations is {least}; "
            f"take at least {least * rounds} photos for {rounds} rounds, or set it lower"
        )
    total = rounds * (rounds + 1) / 2
    sizes = [max(least, int(count * number / total)) for number in range(1, rounds + 1)]
    return [*sizes[:-1], count - sum(sizes[:-1])]


def run_demo(console: Console, source: tuple[Path, Path, Path] | None, count: int, rounds: int) -> None:
    """Start the stack, run `rounds` rounds on `count` photos, print the results, and leave everything running."""
    if not get_settings().storage_emulator:
        raise ConfigurationError(
            "the demo fills buckets and a project with simulated work; it runs on the local bucket server only "
            "(MASKLOOP_STORAGE_EMULATOR=true)"
        )
    if "sam_checkpoint" not in get_settings().model_fields_set:  # neither a download nor its work beside the trainings
        os.environ["MASKLOOP_SAM_CHECKPOINT"] = OFF
        get_settings.cache_clear()
    sizes = sizes_of_rounds(count, rounds, load_params(get_settings().params_path).retrain.min_new_annotations)
    started = time.monotonic()
    demo = Demo(console, up(console), source)
    if source is None and use_small_training(Workspace(demo.settings.workspace_path, demo.settings)):
        console.print(
            f"  each training does {STEPS} steps of a small network (`train` in params.yaml of the workspace)"
        )
    done = [demo.round(number, size) for number, size in enumerate(sizes, start=1)]
    demo.prelabel_next(_NEXT_PHOTOS)
    seconds = time.monotonic() - started
    demo.write_summary(done, seconds)
    console.print(_results(done))
    for number, entry in enumerate(done, start=1):
        console.print(f"round {number}: {entry.saving}", highlight=False)
    for number, entry in enumerate(done, start=1):
        console.print(_clicks(number, entry), highlight=False)
    draw_savings([(entry.tasks, entry.test_miou, entry.saving) for entry in done], demo.folder / "curve.png")
    console.print(f"the curve: {demo.folder / 'curve.png'}", highlight=False, soft_wrap=True)
    console.print(f"{seconds / 60:.1f} min; results in {demo.folder / 'summary.json'}")
    console.print(addresses(demo.settings))
    people = ", ".join(labeler.email for labeler in demo.labelers)
    console.print(f"The simulated labelers ({people}) have Label Studio's password as well.", highlight=False)
    console.print("Everything is still running. `maskloop status` shows its state, `maskloop down` stops it.")


class Demo:
    """The steps of the demo: upload photos, start DAG runs, and let labelers work."""

    def __init__(self, console: Console, settings: Settings, source: tuple[Path, Path, Path] | None) -> None:
        self.console, self.settings, self.source = console, settings, source
        self.params: Params = load_params(settings.params_path)
        self.folder = settings.var / "demo"
        self.archive: Archive = (
            masked_photos(*source, self.params) if source else SyntheticArchive(self.folder / "archive", self.params)
        )
        self.bucket, self.labels, self.airflow = gcs.connect(settings), connect(settings), Airflow(settings)
        self.project = find_project(self.labels, self.params)
        self._name_of: dict[str, str] = {}  # a photo's sha256 → its name in the archive
        password = settings.label_studio_password.get_secret_value()
        url = settings.url(LABEL_STUDIO)
        invitation = str(self.labels.get("/api/invite")["invite_url"])
        people = [f"labeler-{number}@maskloop.local" for number in range(1, _LABELERS + 1)]
        self.labelers = [Labeler(url, person, password, invitation) for person in people]

    def round(self, number: int, size: int) -> Round:
        """Upload photos, and run them through tasks, masks, corrections, dataset and model."""
        from pipelines.models.registry import Registry

        self.console.rule(f"round {number}", align="left")
        before = list(list_tasks(self.labels, self.project))
        photos_before = {task.image.uri for task in before}
        self._add_photos(size)
        tasks = {task.id for task in list_tasks(self.labels, self.project)} - {task.id for task in before}
        with self._step(f"{_LABELERS} labelers correct {len(tasks)} photos in Label Studio") as tick:
            saving = saving_of(label_everything(self.labelers, self.project, self._truth, self.params, tick))
        known = self._known(RETRAIN_DAG, PRELABEL_DAG)
        with self._step(f"{SYNC_DAG}: annotations → dataset version"):
            self.airflow.wait_for(SYNC_DAG, 900, run_id=self.airflow.trigger(SYNC_DAG))
        registry, published = Registry(self.settings), Published.of(self.settings)
        with self._step(f"{RETRAIN_DAG}: dataset version → model version"):
            dataset, model = self._trained(registry, published, known[RETRAIN_DAG])
        champion = registry.champion()
        if champion and champion.version == model.version:
            with self._step(f"{PRELABEL_DAG}: {model.served_as} takes over open tasks"):
                self.airflow.wait_for(PRELABEL_DAG, 600, ignore=known[PRELABEL_DAG])
        clicks = measured_clicks(self.settings, dataset)
        manifest = published.manifest(dataset)
        effort = effort_of(manifest[~manifest["uri"].isin(photos_before)])
        return Round(
            tasks=len(tasks), annotations=effort.photos, dataset=dataset, model=model.served_as,
            promoted=champion is not None and champion.version == model.version,
            steps=f"{model.done_steps}/{model.planned_steps}", test_miou=model.miou,
            prelabel_miou=_rounded(effort.miou, 4), untouched_share=round(effort.untouched_share, 4),
            seconds_per_photo=round(effort.seconds, 1), seconds_with_masks=_rounded(effort.seconds_with_masks, 1),
            seconds_without_masks=_rounded(effort.seconds_without_masks, 1), click_model=clicks.model,
            clicks=_rounded(clicks.noc85, 2), clicks_of_grabcut=_rounded(clicks.noc85_of_grabcut, 2),
            clicks_answered_by=clicks.answers, photos_with_masks=saving.photos,
            saved_minutes=_rounded(saving.minutes, 3), saved_minutes_low=_rounded(saving.low, 3),
            saved_minutes_high=_rounded(saving.high, 3), seconds_by_hand=round(saving.by_hand, 1),
        )  # fmt: skip

    def _trained(self, registry: "Registry", published: Published, known: frozenset[str]) -> tuple[str, ModelVersion]:
        """Wait for the model of the newest dataset version that has one; returns both.

        A sync by the clock may have published a part of a round's work just before: its training comes first, and what
        is left may be too little for another.
        """
        for _ in range(2):
            run = self.airflow.wait_for(RETRAIN_DAG, 3600, ignore=known)
            dataset = published.newest()
            if model := registry.version_trained_on(dataset):
                return dataset, model
            known |= {str(run["dag_run_id"])}
        return next((tag, made) for tag in reversed(published.tags()) if (made := registry.version_trained_on(tag)))

    def prelabel_next(self, count: int) -> None:
        """Add the next photos, and leave them open with the champion's masks."""
        self.console.rule("the next photos", align="left")
        self._add_photos(count)

    def write_summary(self, rounds: list[Round], seconds: float) -> None:
        """Write summary.json, and the same for docs/results.md."""
        self.folder.mkdir(parents=True, exist_ok=True)
        summary = {"rounds": [vars(result) for result in rounds], "seconds": round(seconds, 1)}
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        name = f"demo-{self.source[0].parent.name}" if self.source else "demo"
        command = f"make demo{_make_arguments(self.source)} COUNT={sum(result.tasks for result in rounds)}"
        measured = {
            "name": name, "command": command, "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpu_count": os.cpu_count(), **summary,
        }  # fmt: skip
        bench = self.settings.var / "bench" / f"{name}.json"
        bench.parent.mkdir(exist_ok=True)
        bench.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")

    def _add_photos(self, count: int) -> None:
        known = self._known(PRELABEL_DAG)
        with self._step(f"{count} photos → gs://{self.settings.source_bucket}"):
            self._upload(count)
        with self._step(f"{INGEST_DAG}: photos → tasks"):
            self.airflow.wait_for(INGEST_DAG, 900, run_id=self.airflow.trigger(INGEST_DAG))
        with self._step(f"{PRELABEL_DAG}: tasks → predicted masks"):
            self.airflow.wait_for(PRELABEL_DAG, 900, ignore=known[PRELABEL_DAG])

    def _upload(self, count: int) -> None:
        bucket, prefix = self.settings.source_bucket, self.settings.source_prefix
        uploaded = {ref.name.removeprefix(prefix) for ref in gcs.list_objects(self.bucket, bucket, prefix)}
        if unknown := sorted(uploaded - set(self.archive.take(0, len(uploaded)))):
            raise ConfigurationError(
                f"gs://{bucket}/{prefix} holds photos of another source, such as {unknown[0]}, whose true masks "
                "the demo does not know; run it with another MASKLOOP_VAR, or `make clean` first"
            )
        names = self.archive.take(len(uploaded), count)
        if not names:
            raise ConfigurationError(
                "every photo has been used; give more photos, or start again with another MASKLOOP_VAR"
            )
        for name in [*sorted(uploaded), *names]:
            self._name_of[sha256_hex(self.archive.photo(name))] = name
        for name in names:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            gcs.put(self.bucket, bucket, prefix + name, self.archive.photo(name), kind)
        gcs.put(self.bucket, bucket, self.settings.catalog, self.archive.catalog(), "text/csv")

    def _truth(self, sha256: str) -> np.ndarray:
        return self.archive.truth(self._name_of[sha256])

    def _known(self, *dags: str) -> dict[str, frozenset[str]]:
        return {dag: frozenset(str(run["dag_run_id"]) for run in self.airflow.runs(dag)) for dag in dags}

    @contextmanager
    def _step(self, text: str) -> Iterator[Callable[[], None]]:
        started, ticks = time.monotonic(), 0
        with self.console.status(text) as status:

            def tick() -> None:
                nonlocal ticks
                ticks += 1
                status.update(f"{text} · {ticks}")

            yield tick
        self.console.print(f"[green]✓[/] {text} ({time.monotonic() - started:.0f} s)", highlight=False)


def _rounded(value: float | None, places: int) -> float | None:
    """Return a rounded value; None for NaN as well."""
    return None if value is None or math.isnan(value) else round(value, places)


def _make_arguments(source: tuple[Path, Path, Path] | None) -> str:
    """Return PHOTOS, MASKS and LABELS of a `make demo`, without their parent folders."""
    names = ("PHOTOS", "MASKS", "LABELS")
    return "".join(f" {name}=…/{path.parent.name}/{path.name}" for name, path in zip(names, source or (), strict=False))


def _results(rounds: list[Round]) -> Table:
    table = Table(title="Results by round", title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in (
        "round", "photos", "dataset", "model", "steps", "cham-\npion", "test\nmIoU", "pre-label\nmIoU", "un-\ntouched",
        "s per\nphoto", "with\nmasks", "with-\nout",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for number, entry in enumerate(rounds, start=1):
        table.add_row(
            str(number), str(entry.tasks), entry.dataset, entry.model, entry.steps, "yes" if entry.promoted else "no",
            f"{entry.test_miou:.3f}", _cell(entry.prelabel_miou, 3), f"{entry.untouched_share:.0%}",
            f"{entry.seconds_per_photo:.0f}", _cell(entry.seconds_with_masks, 0), _cell(entry.seconds_without_masks, 0),
        )  # fmt: skip
    return table


def _clicks(number: int, entry: Round) -> str:
    """Say in a line how many clicks a garment took on the test photos of a round."""
    if entry.clicks is None:
        return f"round {number}: no click model was trained; {entry.clicks_answered_by} answers clicks"
    return (
        f"round {number}: {entry.click_model} needs {entry.clicks:.1f} clicks per garment to an IoU of 0.85, GrabCut "
        f"{_cell(entry.clicks_of_grabcut, 1)}; {entry.clicks_answered_by} answers clicks"
    )


def _cell(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"
