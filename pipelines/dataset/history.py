"""One history of datasets, however many machines publish: the git remote has it, and an object of the bucket guards it.

A machine that publishes first takes over what the git remote holds and it does not, then pushes its commit, which git
refuses when another machine was faster. The object `history.json` of the dataset bucket names the newest version's
commit, also where there is no git remote. Whoever does not have this commit publishes nothing; it moves with a
precondition, so that of two machines that publish at once one alone succeeds.
"""

import json
import logging
from dataclasses import asdict, dataclass

from google.cloud.storage import Client

from pipelines.dataset.workspace import BRANCH, Workspace
from pipelines.errors import DatasetError, ObjectChangedError
from pipelines.gcs.client import read, stat, write

logger = logging.getLogger(__name__)
NEWEST = "history.json"
MIRROR = "refs/maskloop/remote/"  # what the settings' git remote holds
TAG = "refs/tags/"


@dataclass(frozen=True)
class Newest:
    """The newest version that any machine published, as `history.json` names it."""

    version: str
    commit: str


def fetch_git_remote(workspace: Workspace) -> None:
    """Fetch the branches and versions of the settings' git remote, if there is one, to references of their own."""
    if remote := workspace.git_remote:
        specs = [f"+refs/heads/*:{MIRROR}heads/*", f"+{TAG}dataset-*:{MIRROR}tags/dataset-*"]
        workspace.git("fetch", "--quiet", "--prune", "--no-tags", remote, *specs)


def push_git(workspace: Workspace) -> None:
    """Push commits and tags to the settings' git remote, if there is one; never by force."""
    if remote := workspace.git_remote:
        workspace.git("push", "--quiet", "--follow-tags", remote, f"HEAD:refs/heads/{BRANCH}")


def follow_git_remote(workspace: Workspace) -> bool:
    """Take over the versions of the git remote when it holds commits that the workspace does not; return whether so.

    What the workspace committed and did not push is dropped, as it can be made again from Label Studio; what a person
    changed is stashed. Raise DatasetError when the workspace has a version that is not in the remote's history.
    """
    fetch_git_remote(workspace)
    fetched = f"{MIRROR}heads/{BRANCH}"
    published, own = _tags(workspace, f"{MIRROR}tags/"), _tags(workspace, TAG)
    if not _exists(workspace, fetched) or _is_ancestor(workspace, fetched, "HEAD"):
        return False
    kept = {tag for tag in own if tag in published and _is_ancestor(workspace, published[tag], own[tag])}
    for tag in own.keys() - kept:
        if not any(_is_ancestor(workspace, own[tag], head) for head in (fetched, published.get(tag, fetched))):
            raise DatasetError(
                f"{tag} of {workspace.path} is not in the history of the git remote, which has versions of its own; "
                "decide which of both goes on: set MASKLOOP_GIT_REMOTE to an empty repository here, or move "
                f"{workspace.path} away, so that the next sync begins with what the remote holds"
            )
    workspace.stash()
    workspace.git("checkout", "--quiet", "--force", "-B", BRANCH, fetched)
    for tag in own.keys() - kept:  # removed there, rewritten there, or never pushed
        workspace.git("update-ref", "-d", f"{TAG}{tag}")
    for tag in published.keys() - kept:
        workspace.git("update-ref", f"{TAG}{tag}", published[tag])
    logger.info("the git remote is ahead: it goes on from %s", max(published, default="its first commits"))
    return True


def require_newest(workspace: Workspace, bucket: Client) -> None:
    """Raise DatasetError when another machine published a version that the workspace does not have."""
    _require(workspace, _newest(workspace, bucket)[0])


def announce(workspace: Workspace, bucket: Client, version: str) -> None:
    """Write that the workspace's HEAD holds the newest version, before it is tagged.

    Raise DatasetError when another machine has published one that the workspace does not have.
    """
    before, generation = _newest(workspace, bucket)
    _require(workspace, before)
    now = Newest(version, workspace.git("rev-parse", "HEAD"))
    if now == before:
        return
    data = (json.dumps(asdict(now)) + "\n").encode()
    try:
        write(bucket, workspace.settings.dvc_bucket, NEWEST, data, "application/json", replaces=generation)
    except ObjectChangedError as error:
        raise DatasetError(
            f"another machine published a version at the same moment ({_uri(workspace)}); run `maskloop sync` again"
        ) from error


def _newest(workspace: Workspace, bucket: Client) -> tuple[Newest | None, int]:
    """Return what `history.json` names, None before anything was published, and its generation."""
    ref = stat(bucket, workspace.settings.dvc_bucket, NEWEST)
    if ref is None:
        return None, 0
    try:
        fields = json.loads(read(bucket, ref))
        return Newest(str(fields["version"]), str(fields["commit"])), ref.generation
    except (ValueError, LookupError, TypeError) as error:
        raise DatasetError(
            f"{_uri(workspace)} does not name a version ({error!r}); restore its previous generation, or delete it on "
            "the machine that published last"
        ) from error


def _require(workspace: Workspace, newest: Newest | None) -> None:
    if newest is None or _is_ancestor(workspace, newest.commit, "HEAD"):
        return
    known = workspace.dataset_tags()
    raise DatasetError(
        f"{newest.version} (commit {newest.commit[:12]}) was published by another machine, and {workspace.path} does "
        f"not hold it: its newest is {known[-1] if known else 'none'}. Two histories would contradict each other: set "
        "the same MASKLOOP_GIT_REMOTE on all machines that publish, or sync on that machine alone. If it is lost for "
        f"good, delete {_uri(workspace)} to go on from here"
    )


def _uri(workspace: Workspace) -> str:
    return f"gs://{workspace.settings.dvc_bucket}/{NEWEST}"


def _tags(workspace: Workspace, place: str) -> dict[str, str]:
    """Return the object of each dataset's tag below a place of references, by the tag's name."""
    lines = workspace.git("for-each-ref", "--format=%(refname) %(objectname)", f"{place}dataset-*").splitlines()
    return {name.removeprefix(place): target for name, target in map(str.split, lines)}


def _exists(workspace: Workspace, reference: str) -> bool:
    return bool(workspace.git("for-each-ref", reference))


def _is_ancestor(workspace: Workspace, commit: str, of: str) -> bool:
    """Return whether a commit is another one or in its history; False for one that the workspace does not have."""
    try:
        workspace.git("merge-base", "--is-ancestor", commit, of)
    except DatasetError:
        return False
    return True
