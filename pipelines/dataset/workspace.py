"""A dataset workspace: a clone of the project in which datasets are versioned with git and DVC.

As it is a clone, a dataset's tag holds the code and parameters that made it. DVC runs only through this module: its
site cache lists what it hashed and pushed, but a kill during `dvc push` leaves one that makes later pushes skip files
silently. DVC writes its small files in place, so a kill can cut them short: the next holder of the lock restores them.
"""

import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.dataset.commands import GIT_IDENTITY, run, run_stages
from pipelines.dataset.object_names import FOLDER_LIST, is_object
from pipelines.dataset.objects import Objects
from pipelines.errors import ConfigurationError, DatasetError
from pipelines.fs import held
from pipelines.gcs.credentials import environment_for_google
from pipelines.settings import PROJECT_ROOT, Settings

logger = logging.getLogger(__name__)
BRANCH = "datasets"
_REMOTE = "bucket"  # its name in DVC's configuration
_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]+@")  # of addresses in git's messages
_LOCKS = (".dvc/tmp/rwlock", ".git/*.lock", ".git/refs/**/*.lock")  # of git and DVC, which run here only under the lock


class Workspace:
    """A clone at `path`, with DVC pointed at the dataset bucket and at one cache shared by all workspaces."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self._lock: tuple[int, ...] = ()

    def ensure(self, source: Path = PROJECT_ROOT) -> None:
        """Clone `source` if there is no workspace yet, and point DVC at the bucket of the settings.

        Raise ConfigurationError when `source` is no git repository with a commit.
        """
        if not (self.path / ".git").exists():
            if not (source / ".git").exists():
                raise _no_repository(source)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.path.parent) as scratch:
                clone = Path(scratch) / "clone"
                run(["git", "clone", "--quiet", "--no-hardlinks", str(source), str(clone)], self.path.parent)
                try:
                    run(["git", "rev-parse", "--quiet", "--verify", "HEAD"], clone)
                except DatasetError as error:
                    raise _no_repository(source) from error
                run(["git", "checkout", "--quiet", "-B", BRANCH], clone)
                clone.rename(self.path)
        self._write_dvc_config()

    def is_on_branch(self) -> bool:
        """Return whether the branch of the datasets is checked out; a person may have checked out something else."""
        return self.git("branch", "--show-current") == BRANCH

    def checkout_branch(self) -> None:
        """Check out the branch of the datasets; what a person changed in files that git tracks is stashed."""
        self.stash()
        self.git("checkout", "--quiet", BRANCH)

    def stash(self) -> None:
        """Stash what a person changed in files that git tracks."""
        if self.git("status", "--porcelain", "--untracked-files=no"):
            self.git("stash", "push", "--quiet", "--message", "stashed by Maskloop")
            logger.warning("changes in %s were stashed; `git stash pop` there brings them back", self.path)

    def check_out(self, tag: str, source: Path, *targets: Path) -> None:
        """Check out a dataset's tag of another clone, with these of its files; what the cache lacks is downloaded.

        What a person changed here is overwritten. Every file is compared with its name first: damaged ones are replaced
        by good copies. Raise DatasetError when a file has none.
        """
        self.git("fetch", "--quiet", "--tags", "--force", str(source))
        self.git("checkout", "--quiet", "--force", "--detach", tag)
        objects = Objects(self.settings)
        files = self.tracked(objects, None, *targets)
        objects.require(files, tag)
        for path, md5 in files.items():  # DVC would take its word for files that it linked or copied before
            file = self.path / path
            if file.is_file() and not file.samefile(objects.path(md5)) and not is_object(file, md5):
                file.unlink()
        self.dvc("checkout", "--force", *map(str, targets))

    def merge_source(self, source: Path = PROJECT_ROOT) -> bool:
        """Merge the source's latest commit, so that params.yaml and code here are the committed ones.

        Return whether anything was merged. Where a person has checked out something else, nothing is done: the next
        sync checks out the branch and merges. Raise DatasetError when the merge conflicts; the workspace is left as it
        was.
        """
        if not self.is_on_branch():
            return False
        self.git("reset", "--quiet")  # a kill may have left staged files
        before = self.git("rev-parse", "HEAD")
        self.git("fetch", "--quiet", str(source), "HEAD")
        try:
            self.git("merge", "--quiet", "--no-edit", "FETCH_HEAD")
        except DatasetError as error:
            if (self.path / ".git" / "MERGE_HEAD").exists():
                self.git("merge", "--abort")
            raise DatasetError(
                f"the project's commits cannot be merged into {self.path}: {error}; merge them there by hand"
            ) from error
        return self.git("rev-parse", "HEAD") != before

    @property
    def site_cache(self) -> Path:
        """Return the folder of DVC's site cache: its records of what it hashed and pushed."""
        folder = self.settings.var / "dvc-site"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def git(self, *arguments: str) -> str:
        """Run git in the workspace and return its output; raise DatasetError with git's message when it fails."""
        try:
            return run(["git", *GIT_IDENTITY, *arguments], self.path, keep_open=self._lock)
        except DatasetError as error:
            raise DatasetError(_CREDENTIALS.sub(r"\1…@", str(error))) from None  # whose message has them as well

    @property
    def git_remote(self) -> str:
        """Return the address of the settings' git remote, which may hold a token; empty if there is none."""
        return self.settings.git_remote.get_secret_value()

    def dvc(
        self, *arguments: str, show: bool = False, use_site_cache: bool = True, more: Mapping[str, str] | None = None
    ) -> str:
        """Run DVC in the workspace and return its output; with `show` it goes to the log as well.

        Stages find `more` in their environment. Without `use_site_cache`, DVC checks everything, whatever it hashed or
        pushed before. Raise what a stage failed with, or DatasetError with DVC's message.
        """
        site_cache = self.site_cache
        with tempfile.TemporaryDirectory(prefix="maskloop-dvc-") as empty:
            site = {"DVC_SITE_CACHE_DIR": str(site_cache) if use_site_cache else empty}
            environment = {**self._environment(), **site, **(more or {})}
            command = [sys.executable, "-m", "dvc", *arguments]
            return run_stages(command, self.path, environment, show=show, keep_open=self._lock)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(self.path),
            "DVC_NO_ANALYTICS": "1",
            **environment_for_google(self.settings),
            # gcsfs would ask what kind of bucket it is, with an experimental gRPC service that no bucket here needs and
            # that the emulator answers after a minute, with an error.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def dataset_tags(self) -> list[str]:
        """Return the tags of published datasets, oldest first."""
        return self.git("tag", "--list", "dataset-*", "--sort=version:refname").split()

    def tracked(
        self, objects: Objects, tag: str | None = None, *targets: Path, problems: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Return the MD5 name of every file below data/ that DVC keeps, as it is now or at a tag.

        The keys are paths relative to the workspace. A folder has an entry of its own, whose name ends with `.dir`.
        With `targets`, only these files and folders are looked for. Raise DatasetError when the list of a folder has no
        good copy; with `problems`, the reason is added there by the folder's path and its files are left out.
        """
        wanted = {target.as_posix() for target in targets}
        files = {path: md5 for path, md5 in self._outputs(tag) if not wanted or path in wanted}
        for path, md5 in list(files.items()):
            if not md5.endswith(FOLDER_LIST):
                continue
            try:
                entries = json.loads(objects.read(md5, f"the list of {path}"))
            except DatasetError as error:
                if problems is None:
                    raise
                problems[path] = str(error)
                continue
            files |= {f"{path}/{entry['relpath']}": str(entry["md5"]) for entry in entries}
        return files

    def _outputs(self, tag: str | None) -> Iterator[tuple[str, str]]:
        """Yield path and MD5 name of each file and folder below data/ that DVC keeps, without the files in folders."""
        from dvc.api import DVCFileSystem

        config = {"core": {"site_cache_dir": str(self.site_cache)}}
        for output in DVCFileSystem(url=str(self.path), rev=tag, config=config).repo.index.outs:
            place, key = output.index_key
            if place == "repo" and key[0] == "data" and output.use_cache and output.hash_info:
                yield "/".join(key), str(output.hash_info.value)

    def show(self, revision: str, path: str) -> str:
        """Return a file's text at a revision; an empty text when there is no such file."""
        try:
            return self.git("show", f"{revision}:{path}")
        except DatasetError:
            return ""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace's lock; a second writer waits until the first is done or killed.

        Git and DVC hold it as well while they run, because they outlive a killed writer for a moment and go on writing.
        """
        busy = self.path.parent / f"{self.path.name}.busy"
        with held(self.path.parent / f"{self.path.name}.lock") as lock:
            self._lock = (lock,)
            try:
                if busy.exists():
                    self._restore()
                busy.touch()
                yield
                busy.unlink()  # not after an error: DVC may have been ended while it wrote
            finally:
                self._lock = ()

    def _restore(self) -> None:
        """Undo what git and DVC may have left half written; stages whose record is lost run again."""
        for name in _LOCKS:
            for path in self.path.glob(name):
                path.unlink()
        if (self.path / ".git").exists():
            recorded = set(self.git("ls-tree", "--name-only", "HEAD", "dvc.lock", "data/").splitlines())
            for path in [self.path / "dvc.lock", *self.path.glob("data/*.dvc")]:
                name = str(path.relative_to(self.path))
                if name in recorded:
                    self.git("checkout", "--quiet", "HEAD", "--", name)
                else:
                    path.unlink(missing_ok=True)
            self.git("reset", "--quiet")
            self.stash()  # files of a merge that was cut short

    def recorded_remote(self) -> dict[str, str]:
        """Return the remote that .dvc/config names, with the keys `url` and `endpointurl`; empty when it names none."""
        from dvc.config import Config

        text = self.show("HEAD", ".dvc/config")  # as committed: the file may be cut short by a kill
        with tempfile.TemporaryDirectory(prefix="maskloop-dvc-") as folder:
            (Path(folder) / "config").write_text(text + "\n", encoding="utf-8")
            remotes = Config(folder, validate=False).read("repo").get("remote", {})
        return {str(key): str(value) for key, value in remotes.get(_REMOTE, {}).items()}

    def record_remote(self) -> None:
        """Write the remote's address to .dvc/config, which git tracks, so that a clone needs nothing else.

        It holds no secret: DVC takes Google's credentials from the environment of whoever reads.
        """
        url, endpoint = f"gs://{self.settings.dvc_bucket}/dvc", self.settings.storage_endpoint
        if self.recorded_remote() == {"url": url, **({"endpointurl": endpoint} if endpoint else {})}:
            return
        self.git("checkout", "--quiet", "HEAD", "--", ".dvc/config")
        self.dvc("remote", "add", "--project", "--force", "--default", _REMOTE, url)
        if endpoint:
            self.dvc("remote", "modify", "--project", _REMOTE, "endpointurl", endpoint)

    def _write_dvc_config(self) -> None:
        url = f"gs://{self.settings.dvc_bucket}/dvc"
        lines = [
            "[core]\n    remote = bucket",
            f"[cache]\n    dir = {self.settings.var / 'dvc-cache'}\n    type = hardlink,symlink,copy",
            f"['remote \"bucket\"']\n    url = {url}",
        ]
        if self.settings.storage_endpoint:
            lines[-1] += f"\n    endpointurl = {self.settings.storage_endpoint}"
        text = "\n".join(lines) + "\n"
        path = self.path / ".dvc" / "config.local"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _no_repository(source: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{source} is no git repository with a commit, and datasets are versioned in a clone of it; "
        "get it with git clone, or run: git init && git add -A && git commit -m start"
    )
