"""Photos and people are removed from real buckets, git, DVC and MLflow, and nothing else changes."""

import json
from collections.abc import Callable

import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.objects import Objects
from pipelines.errors import DataError
from pipelines.forget.find import find_people, find_photos
from pipelines.forget.forget import acquainted, allow_again, forget, search
from pipelines.forget.subjects import PENDING, Photo, Subjects, load_pending
from pipelines.forget.traces import Trace, as_plan, as_proof
from pipelines.gcs import client as gcs
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.records import Annotation, PhotoAddress
from pipelines.segmentation.embeddings import embedding_name
from tests.unit.forget.conftest import ADA, Archive

Drawn = dict[str, Annotation]


def photo(archive: Archive, text: str) -> Photo:
    [found] = find_photos(archive.bucket, archive.studio.client, archive.settings, [text], Subjects())
    return found


def stored(archive: Archive, bucket: str, name: str) -> bytes:
    ref = gcs.stat(archive.bucket, bucket, name)
    assert ref is not None
    return gcs.read(archive.bucket, ref)


def by_store(traces: tuple[Trace, ...]) -> dict[str, set[str]]:
    stores: dict[str, set[str]] = {}
    for trace in traces:
        stores.setdefault(trace.store, set()).add(trace.what)
    return stores


def add_what_others_leave(archive: Archive, annotation: Annotation) -> None:
    """Add copies, embeddings, reports, pages, exports, caches and logs that show or name a photo."""
    sha256, uri, target = annotation.image.sha256, annotation.image.uri, archive.settings.target_bucket
    for name, text in {
        f"copies/{sha256}.jpg": "a picture",
        f"copies/{sha256}.1000x1500.jpg": "a smaller picture",
        "reports/ingest.csv": f"uri,generation\n{uri},1\ngs://x/other.png,2\n",
        "checks/2026-01-01/abc.html": f"<p>stray strokes on {uri}</p>",
        "checks/2026-01-01/def.html": "<p>all is well</p>",
    }.items():
        gcs.put(archive.bucket, target, name, text.encode(), "text/plain")
    archive.studio.exports = {1: [{"data": {"sha256": sha256}}], 2: [{"data": {"sha256": "other"}}]}
    var, key = archive.settings.var, PhotoAddress(uri, annotation.image.generation).key
    for name, text in {
        f"clicks/features/0123456789abcdef/{embedding_name('clicks-0123456789abcdef', key)}": "features",
        "ingest.json": json.dumps({"tasks": [uri]}),
        "logs/ingest.log": f"INFO {uri} was read\nINFO {uri}2 was read\n",
        "quality/lite/" + sha256: "features",
        "label-studio/export/project-1.json": json.dumps([{"image": uri}]),
        "notes.txt": f"ask about {sha256}",
    }.items():
        (var / name).parent.mkdir(parents=True, exist_ok=True)
        (var / name).write_text(text, encoding="utf-8")


def test_a_photo_is_removed_everywhere_but_from_published_versions(archive: Archive, drawn: Drawn) -> None:
    uri = drawn["b"].image.uri
    add_what_others_leave(archive, drawn["b"])
    data = stored(archive, *gcs.split_uri(uri))
    gcs.put(archive.bucket, archive.settings.source_bucket, "again/b2.png", data, "image/png")  # fmt: skip
    subjects = acquainted(archive.stores, Subjects((photo(archive, uri),)))
    before = archive.objects()

    plan = search(archive.stores, subjects)
    assert plan.problems == ()
    assert archive.objects() == before, "a search changes nothing"
    assert {"photo"} <= by_store(plan.traces)["source bucket"]
    assert "how many" in str([column.header for column in as_plan(plan.traces).columns])
    assert subjects.tags == ("dataset-0001", "dataset-0002")

    result = forget(archive.stores, subjects)

    assert result.problems == ()
    assert result.is_done
    assert not (archive.settings.var / PENDING).exists()
    assert set(archive.studio.tasks) == {1, 3, 4}
    assert set(archive.studio.exports) == {2}
    names = {ref.name for ref in gcs.list_objects(archive.bucket, archive.settings.source_bucket)}
    assert names == {"a.png", "c.png", "d.png", archive.settings.catalog}
    target = archive.settings.target_bucket
    names = {ref.name for ref in gcs.list_objects(archive.bucket, target)}
    assert "annotations/b.json" not in names
    assert {"annotations/a.json", "checks/2026-01-01/def.html", "forgotten.json"} <= names
    assert "checks/2026-01-01/abc.html" not in names
    assert not [name for name in names if name.startswith(f"copies/{drawn['b'].image.sha256}")]
    report = stored(archive, target, "reports/ingest.csv").decode("utf-8-sig")
    assert report.splitlines() == ["uri,generation", "gs://x/other.png,2"]
    var = archive.settings.var
    assert (var / "logs/ingest.log").read_text() == f"INFO {'*' * len(uri)} was read\nINFO {uri}2 was read\n"
    assert not list((var / "clicks" / "features").glob("*/*"))
    assert not any((var / name).exists() for name in ("ingest.json", "label-studio/export/project-1.json"))
    left = by_store(result.left)
    assert left["published versions"] >= {"version"}
    assert left["objects of DVC"] == {"file of the cache", "object on the remote"}
    assert left["files of this machine"] == {"text"}
    assert [trace.place for trace in result.left if trace.store == "files of this machine"] == [str(var / "notes.txt")]
    assert "workspace" not in left
    as_proof(["workspace"], result.left)

    tag = archive.sync(*drawn.values())  # a Label Studio that still had the task
    assert tag == "dataset-0003"
    held = search(archive.stores, subjects).traces
    assert {trace.place for trace in held if trace.what == "version"} == {"dataset-0001", "dataset-0002"}
    assert set(archive.published.manifest(tag)["sha256"]) == {drawn[name].image.sha256 for name in "acd"}


def test_published_versions_are_rewritten_and_everything_else_stays(archive: Archive, drawn: Drawn) -> None:
    sha256 = {name: annotation.image.sha256 for name, annotation in drawn.items()}
    before = {}
    for tag in archive.published.tags():
        with archive.published.checked_out(tag) as dataset:
            before[tag] = (dataset.manifest(), {name: dataset.mask_png(sha256[name]) for name in "abcd"})
    subjects = acquainted(archive.stores, Subjects((photo(archive, sha256["b"]),), published=True))

    result = forget(archive.stores, subjects)

    assert (result.problems, result.left) == ((), ()), [(t.store, t.what, t.place, t.reason) for t in result.left]
    remote = archive.workspace.git("ls-remote", archive.workspace.git_remote)
    for tag, (manifest, masks) in before.items():
        revision = archive.published.revision(tag)
        assert f"{revision}\trefs/tags/{tag}^{{}}" in remote
        others = manifest[manifest["sha256"] != sha256["b"]]["sha256"].tolist()
        now = archive.published.manifest(tag)
        assert now["sha256"].tolist() == others
        assert json.loads(archive.published.text(tag, "data/version.json"))["photos"] == len(others)
        columns = ["uri", "generation", "mask_sha256", "split", "annotations", "annotators", "label_pixels"]
        assert now[columns].astype(str).to_dict() == (
            manifest[manifest["sha256"] != sha256["b"]].reset_index(drop=True)[columns].astype(str).to_dict()
        )
        objects = Objects(archive.settings, archive.bucket)
        files = archive.published.files(tag)
        assert objects.missing_on_remote(set(files.values())) == set()
        with archive.published.checked_out(tag) as dataset:
            for name in "acd":
                assert dataset.mask_png(sha256[name]) == masks[name]
    assert archive.workspace.git("log", "-1", "--format=%an", "dataset-0001") == "Maskloop"
    assert archive.workspace.git("status", "--porcelain") == ""

    assert archive.sync(*(drawn[name] for name in "acd")) == "", "the rewritten version is what a sync would publish"
    assert search(archive.stores, subjects).traces == ()


def test_whoever_is_killed_again_and_again_gets_there(
    archive: Archive, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = acquainted(archive.stores, Subjects((photo(archive, "c.png"),), published=True))
    calls, limit = 0, 1
    original_git, original_dvc = type(archive.workspace).git, type(archive.workspace).dvc

    def killed(original: Callable[..., str]) -> Callable[..., str]:
        def run(self: object, *arguments: str, **options: object) -> str:
            nonlocal calls
            writes = arguments[0] in ("add", "commit", "tag", "fetch", "push", "checkout") and arguments[1:2] != (
                "--list",
            )
            calls += writes
            if writes and calls >= limit:
                raise KeyboardInterrupt
            return original(self, *arguments, **options)

        return run

    monkeypatch.setattr(type(archive.workspace), "git", killed(original_git))
    monkeypatch.setattr(type(archive.workspace), "dvc", killed(original_dvc))
    for _ in range(40):
        calls = 0
        try:
            result = forget(archive.stores, subjects)
            break
        except KeyboardInterrupt:
            limit += 3
            pending = load_pending(archive.settings.var / PENDING)
            assert pending.hashes == subjects.hashes, "the next run knows what is left"
            subjects = pending
    monkeypatch.undo()
    assert (result.problems, [trace for trace in result.left if trace.what != "row of the catalogue"]) == ((), [])
    assert set(archive.published.manifest("dataset-0002")["sha256"]) == {drawn[name].image.sha256 for name in "abd"}


def test_a_person_becomes_a_pseudonym(archive: Archive, drawn: Drawn) -> None:
    people = find_people(archive.studio.client, archive.settings, ["ADA@example.org"], Subjects())
    subjects = acquainted(archive.stores, Subjects((), people, published=True))
    pseudonym = people[0].pseudonym

    result = forget(archive.stores, subjects)

    assert result.problems == ()
    assert [trace.what for trace in result.left] == ["address in the database"]
    assert "forget-account" in result.left[0].reason
    user = archive.studio.users[7]
    assert (user["first_name"], user["last_name"], user["username"]) == (pseudonym, "", pseudonym)
    assert 7 in archive.studio.removed
    for tag in archive.published.tags():
        names = {str(name) for row in archive.published.manifest(tag)["annotators"] for name in row}
        assert names == {pseudonym, "bob@example.org"}
        with archive.published.checked_out(tag) as dataset:
            assert {annotation.annotator for annotation in dataset.annotations.read()} == names
    mirrored = stored(archive, archive.settings.target_bucket, "annotations/a.json")
    assert json.loads(mirrored)["annotator"] == pseudonym

    archive.sync(*drawn.values(), *())  # Label Studio's API still names the person
    assert ADA not in str(archive.published.manifest("dataset-0002").to_dict())
    assert {annotation.annotator for annotation in archive.dataset.annotations.read()} == {pseudonym, "bob@example.org"}


def test_what_is_not_known_is_an_error_that_names_candidates(archive: Archive, drawn: Drawn) -> None:
    with pytest.raises(DataError, match=r"no photo is known as 'x/a\.png'; did you mean gs://.*/a\.png"):
        photo(archive, "x/a.png")
    with pytest.raises(DataError, match=drawn["a"].image.sha256):
        photo(archive, drawn["a"].image.sha256[:10])
    with pytest.raises(DataError, match="task:1, task:2"):
        photo(archive, "task:99")
    with pytest.raises(DataError, match=f"nobody is known as eve@x.org; .*{ADA}"):
        find_people(archive.studio.client, archive.settings, ["eve@x.org"], Subjects())
    with pytest.raises(DataError, match="Maskloop's own account"):
        find_people(archive.studio.client, archive.settings, ["Admin@maskloop.local"], Subjects())
    gcs.put(archive.bucket, archive.settings.source_bucket, "a.png", b"other bytes", "image/png")
    with pytest.raises(DataError, match="means 2 photos; name one by its SHA-256"):
        photo(archive, drawn["a"].image.uri)
    assert photo(archive, "task:1").sha256 == drawn["a"].image.sha256
    assert photo(archive, "task:1").texts == (), "the address is another photo's now"


def test_forgotten_photos_stay_away_until_they_are_allowed(archive: Archive, drawn: Drawn) -> None:
    sha256 = drawn["a"].image.sha256
    forget(archive.stores, Subjects((photo(archive, sha256),)))
    assert sha256 in archive.forgotten
    listed = stored(archive, archive.settings.target_bucket, "forgotten.json")
    assert sha256.encode() not in listed
    changes = Changes(tuple(drawn.values()), frozenset(), frozenset(), TaskCursor(frozenset(), None))
    assert [a.uuid for a in archive.forgotten.applied_to(changes).annotations] == ["b", "c", "d"]
    assert allow_again(archive.bucket, archive.settings, sha256)
    assert not allow_again(archive.bucket, archive.settings, sha256)
    assert sha256 not in archive.forgotten


def test_one_store_that_fails_stops_no_other(archive: Archive, drawn: Drawn) -> None:
    subjects = Subjects((photo(archive, "d.png"),))
    stores = archive.stores

    def down() -> None:
        raise DataError("MLflow is down")

    object.__setattr__(stores, "registry", down)
    result = forget(stores, subjects)
    assert [problem for problem in result.problems if "MLflow is down" in problem]
    assert not result.is_done
    assert (archive.settings.var / PENDING).exists()
    assert not Dataset(archive.workspace.path).image_path(drawn["d"].image.sha256).exists()
    object.__setattr__(stores, "registry", archive.stores.registry)
    assert forget(stores, load_pending(archive.settings.var / PENDING)).is_done
