"""Put a challenger before the gate: compare it with the champion on the test photos, and log what was weighed."""

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
from pipelines.training.decision import Decision, Steps
from pipelines.training.evaluate import evaluate_model
from pipelines.training.floor import Floor, floor_of
from pipelines.training.gate import decide, known_to
from pipelines.training.report import Candidate, write_page

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestPhotos:
    """The photos of the test split: those that candidates are `judged` on, and how many are left out, by the reason.

    `anchored` ones have masks that a model drew parts of; on `seen` ones a candidate was trained.
    """

    judged: tuple[str, ...]
    everything: tuple[str, ...]
    anchored: int
    seen: int

    @property
    def shown(self) -> list[str]:
        """Return the photos for the report: the judged ones, or all when none can be judged."""
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
    dataset, compared = training.dataset_files, [version, champion] if champion else [version]
    photos = choose_test_photos(registry, published, dataset, compared)
    with tempfile.TemporaryDirectory() as scratch:
        network = lay_out_network(training, Path(scratch) / "challenger")
        challenger, opponent = _evaluate(version, network, dataset, photos, params), None
        if champion:
            opponent = _evaluate(champion, registry.download(champion, Path(scratch)), dataset, photos, params)
        decision = _decide(registry, version, training, photos, challenger, opponent, params)
        _log_gate(registry, version, decision, dataset, photos, champion, Path(scratch))
        changes = changes_since(champion, version, training, registry, published, clone) if champion else None
        page, title = Path(scratch) / REPORT_PAGE, f"trained on {version.dataset}: {training.summary}"
        write_page(page, dataset, title, decision, challenger, opponent, params, changes)
        registry.log_file(version.run_id, page)
    logger.info(
        "%s: %s: %s", version.served_as, "to be promoted" if decision.promote else "not promoted", decision.reason
    )
    if decision.promote:
        registry.log_gate_table(version, decision.as_markdown())
        return version, decision.reason
    registry.note_decision(version, decision.reason, decision.as_markdown())
    return replace(version, promoted=False, reason=decision.reason), None


def choose_test_photos(
    registry: Registry, published: Published, dataset: Dataset, candidates: Sequence[ModelVersion]
) -> TestPhotos:
    """Return the test photos of a dataset that candidates can be judged on, and why others are left out."""
    everything, clean = photos_in(dataset, "test"), clean_photos(dataset, "test")
    learned: set[str] = set()
    for version in candidates:
        learned |= photos_learned_from(registry, published, version)
    judged = tuple(photo for photo in clean if photo not in learned)
    return TestPhotos(judged, tuple(everything), len(everything) - len(clean), len(clean) - len(judged))


def photos_learned_from(registry: Registry, published: Published, version: ModelVersion) -> set[str]:
    """Return the photos (SHA-256) that a version, or one that it started from, was trained on.

    Assignments to splits are permanent, except when `split` in params.yaml changes: then photos that were trained on
    may come into the test split. Datasets and versions that are gone are named in the log.
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


def _evaluate(version: ModelVersion, network: Path, dataset: Dataset, photos: TestPhotos, params: Params) -> Candidate:
    """Evaluate a version in 32 bits, as all metrics are taken."""
    model = load_model(network, min_region_share=params.prelabel.min_region_share, reduced_precision=False)
    return Candidate(version.served_as, model, evaluate_model(model, dataset, photos.shown, params.label_ids))


def _decide(
    registry: Registry, version: ModelVersion, training: Training, photos: TestPhotos, challenger: Candidate,
    champion: Candidate | None, params: Params,
) -> Decision:  # fmt: skip
    metrics = json.loads((training.folder / METRICS).read_text(encoding="utf-8"))
    cards = [candidate.model.card.labels for candidate in (challenger, champion) if candidate]
    return decide(
        challenger.evaluation.on(photos.judged),
        champion.evaluation.on(photos.judged) if champion else None,
        ["background", *params.label_ids],
        params.promote,
        looks=registry.looks_at(families_of(training.dataset_files, photos.judged), before=version),
        known=known_to(cards, params.label_ids),
        floor=_floor(challenger, training.dataset_files, photos, metrics, params),
        steps=Steps.from_json(training.steps) if training.steps else None,
        agreement=metrics.get("served_agreement"),
        anchored=photos.anchored,
        seen=photos.seen,
        number=version.version,
    )


def _floor(
    challenger: Candidate, dataset: Dataset, photos: TestPhotos, metrics: Mapping[str, Any], params: Params
) -> Floor | None:
    """Return what the challenger's masks save on the photos that it is judged on; None when there are none."""
    if not photos.judged:
        return None
    if not photos.seen:
        return Floor.from_metrics(metrics)  # the stage evaluated it on these very photos
    evaluation = challenger.evaluation.on(photos.judged)
    seconds = estimate_seconds(dataset.manifest(), params.effort)
    regions = cross_fitted(evaluation.regions, seconds, params.effort)
    saved = savings_by_photo(regions, evaluation.photos, seconds, params.effort)
    return floor_of(saved, evaluation.families, params.evaluate.resamples)


def _log_gate(
    registry: Registry, version: ModelVersion, decision: Decision, dataset: Dataset, photos: TestPhotos,
    champion: ModelVersion | None, scratch: Path,
) -> None:  # fmt: skip
    """Log what was weighed with the version and its run, before the decision itself is noted."""
    path = scratch / GATE_FILE
    look = {
        "challenger": version.served_as,
        "champion": champion.served_as if champion else "",
        "compared": champion is not None and version.is_complete,  # no other look could lead to a promotion
        "test_families": sorted(set(families_of(dataset, photos.judged))),
    }
    path.write_text(json.dumps(look | json.loads(decision.as_json()), indent=1) + "\n", encoding="utf-8")
    registry.log_file(version.run_id, path)
    if decision.detectable_gain is not None:
        manifest = dataset.manifest()
        split_config = str(manifest["division"].iloc[0]) if "division" in manifest.columns else ""
        registry.tag(version, {DETECTABLE: f"{decision.detectable_gain:.4f}", SPLIT_CONFIG: split_config})
    if decision.champion_miou is not None and decision.gain:
        gain, low, high = decision.gain
        names = ("champion_test_miou", "gain", "gain_low", "gain_high")
        values = dict(zip(names, (decision.champion_miou, gain, low, high), strict=True))
        registry.add_metrics(version.run_id, {name: value for name, value in values.items() if math.isfinite(value)})
        interval = f" ({low:+.3f}…{high:+.3f})" if math.isfinite(low) and math.isfinite(high) else ""
        registry.tag_run(version.run_id, {GAIN: f"{gain:+.3f}{interval}"} if math.isfinite(gain) else {})
