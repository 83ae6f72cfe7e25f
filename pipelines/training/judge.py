"""Puts a challenger before the gate: on which photos, against whom, and where it is written what came of it."""

import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import METRICS
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, StorageError
from pipelines.models.overview import GAIN, REPORT_PAGE
from pipelines.models.registry import Registry
from pipelines.models.run import Training, lay_out_network
from pipelines.models.versions import DETECTABLE, GATE_FILE, SPLIT_CONFIG
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.segmentation.model import load_model
from pipelines.training.acceptance import cross_fitted, estimate_seconds, savings_by_photo
from pipelines.training.changes import changes_since
from pipelines.training.data import clean_photos, families_of, photos_in
from pipelines.training.evaluate import evaluate_model
from pipelines.training.floor import Floor, floor_of
from pipelines.training.gate import Decision, Steps, decide, known_to
from pipelines.training.report import Contender, write_page

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestSide:
    """The test photos: those that contenders are judged on, and how many others there are, by the reason why.

    `anchored` ones have masks that a model drew parts of; on `seen` ones a contender was trained.
    """

    judged: tuple[str, ...]
    everything: tuple[str, ...]
    anchored: int
    seen: int

    @property
    def shown(self) -> list[str]:
        """Return the photos for the report: the judged ones, or all where none can be judged."""
        return list(self.judged) or list(self.everything)


def judge(
    registry: Registry, published: Published, clone: Workspace, training: Training, version: ModelVersion,
    params: Params,
) -> tuple[ModelVersion, str | None]:  # fmt: skip
    """Compare a version with the champion; return it, and the reason to promote it or None.

    What was weighed is logged with its run. That it stays a challenger, and why, is noted at once; a promotion is noted
    by whoever promotes it.
    """
    champion = registry.champion()
    if champion and champion.version == version.version:  # killed between the alias and the note
        return version, version.reason or "why was lost when the run was killed"
    dataset, contenders = training.dataset_files, [version, champion] if champion else [version]
    side = divide_test_side(registry, published, dataset, contenders)
    with tempfile.TemporaryDirectory() as scratch:
        ours = _contend(
            version, lay_out_network(training.folder, Path(scratch) / "ours"), training.dataset_files, side, params
        )
        theirs = (
            _contend(champion, registry.download(champion, Path(scratch)), training.dataset_files, side, params)
            if champion
            else None
        )
        decision = _decide(registry, version, training, side, ours, theirs, params)
        _keep(registry, version, decision, dataset, side, champion, Path(scratch))
        changes = changes_since(champion, version, training, registry, published, clone) if champion else None
        page, title = Path(scratch) / REPORT_PAGE, f"trained on {version.dataset}: {training.summary}"
        write_page(page, dataset, title, decision, ours, theirs, params, changes)
        registry.log_file(version.run_id, page)
    logger.info(
        "%s: %s: %s", version.served_as, "to be promoted" if decision.promote else "not promoted", decision.reason
    )
    if decision.promote:
        registry.log_gate_table(version, decision.as_markdown())
        return version, decision.reason
    registry.note_decision(version, decision.reason, decision.as_markdown())
    return replace(version, promoted=False, reason=decision.reason), None


def divide_test_side(
    registry: Registry, published: Published, dataset: Dataset, contenders: Sequence[ModelVersion]
) -> TestSide:
    """Tell which test photos of a dataset the contenders can be judged on."""
    everything, clean = photos_in(dataset, "test"), clean_photos(dataset, "test")
    learned: set[str] = set()
    for version in contenders:
        learned |= photos_learned_from(registry, published, version)
    judged = tuple(photo for photo in clean if photo not in learned)
    return TestSide(judged, tuple(everything), len(everything) - len(clean), len(clean) - len(judged))


def photos_learned_from(registry: Registry, published: Published, version: ModelVersion) -> set[str]:
    """Return the photos (sha256) that a version, or one that it started from, was trained on.

    The sides of photos hold for ever, except when `split` in params.yaml changes: then photos that were trained on
    come to stand on the test side. Datasets and versions that are gone are named in the log.
    """
    ancestors, gone = registry.ancestors(version)
    if gone:
        logger.warning("%s started from %s, which is gone: its training photos are not known", version.served_as, gone)
    photos: set[str] = set()
    for dataset in dict.fromkeys(earlier.dataset for earlier in (version, *ancestors)):
        try:
            if not dataset:
                raise DatasetError(f"MLflow does not say on which dataset {version.served_as} was trained")
            manifest = published.manifest(dataset)
        except (DatasetError, StorageError) as error:
            logger.warning("the training photos of %s are not known: %s", version.served_as, error)
        else:
            photos |= set(manifest.loc[manifest["split"] == "train", "sha256"])
    return photos


def _contend(version: ModelVersion, network: Path, dataset: Dataset, side: TestSide, params: Params) -> Contender:
    """Evaluate a version in 32 bits, as every figure is."""
    model = load_model(network, min_region_share=params.prelabel.min_region_share, reduced_precision=False)
    return Contender(version.served_as, model, evaluate_model(model, dataset, side.shown, params.label_ids))


def _decide(
    registry: Registry, version: ModelVersion, training: Training, side: TestSide, ours: Contender,
    theirs: Contender | None, params: Params,
) -> Decision:  # fmt: skip
    figures = json.loads((training.folder / METRICS).read_text(encoding="utf-8"))
    cards = [one.model.card.labels for one in (ours, theirs) if one]
    return decide(
        ours.found.on(side.judged),
        theirs.found.on(side.judged) if theirs else None,
        ["background", *params.label_ids],
        params.promote,
        looks=registry.looks_at(families_of(training.dataset_files, side.judged), before=version),
        known=known_to(cards, params.label_ids),
        floor=_floor(ours, training.dataset_files, side, figures, params),
        steps=Steps.from_json(training.steps) if training.steps else None,
        agreement=figures.get("served_agreement"),
        anchored=side.anchored,
        seen=side.seen,
        number=version.version,
    )


def _floor(
    ours: Contender, dataset: Dataset, side: TestSide, figures: Mapping[str, Any], params: Params
) -> Floor | None:
    """Give what the challenger's masks save on the photos it is judged on; None when there are none."""
    if not side.judged:
        return None
    if not side.seen:
        return Floor.from_metrics(figures)  # the evaluation was on these very photos
    found, seconds = ours.found.on(side.judged), estimate_seconds(dataset.manifest(), params.effort)
    regions = cross_fitted(found.regions, seconds, params.effort)
    saved = savings_by_photo(regions, found.photos, seconds, params.effort)
    return floor_of(saved, found.families, params.evaluate.resamples)


def _keep(
    registry: Registry, version: ModelVersion, decision: Decision, dataset: Dataset, side: TestSide,
    champion: ModelVersion | None, scratch: Path,
) -> None:  # fmt: skip
    """Write what was weighed to the version and its run, before the decision itself."""
    path = scratch / GATE_FILE
    looked = {
        "challenger": version.served_as,
        "champion": champion.served_as if champion else "",
        "compared": champion is not None and version.is_complete,  # nothing could come of any other look
        "test_families": sorted(set(families_of(dataset, side.judged))),
    }
    path.write_text(json.dumps(looked | json.loads(decision.as_json()), indent=1) + "\n", encoding="utf-8")
    registry.log_file(version.run_id, path)
    if decision.detectable_gain is not None:
        manifest = dataset.manifest()
        division = str(manifest["division"].iloc[0]) if "division" in manifest.columns else ""
        registry.tag(version, {DETECTABLE: f"{decision.detectable_gain:.4f}", SPLIT_CONFIG: division})
    if decision.champion_miou is not None and decision.gain:
        gain, low, high = decision.gain
        names = ("champion_test_miou", "gain", "gain_low", "gain_high")
        values = dict(zip(names, (decision.champion_miou, gain, low, high), strict=True))
        registry.add_metrics(version.run_id, {name: value for name, value in values.items() if math.isfinite(value)})
        interval = f" ({low:+.3f}…{high:+.3f})" if math.isfinite(low) and math.isfinite(high) else ""
        registry.tag_run(version.run_id, {GAIN: f"{gain:+.3f}{interval}"} if math.isfinite(gain) else {})
