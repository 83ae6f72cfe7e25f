"""Words that code and documents avoid, and what stands in their place; CONTRIBUTING.md has the glossary.

An expression matches where neither a letter before nor a letter after it continues the word, so that names in code
(`_make_room`, `look_at`) are found as well.
"""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from pipelines.settings import PROJECT_ROOT

INSTEAD_OF = {
    r"stations?": "pipeline, or the DAG's name",
    r"house(?:hold)?s?|rooms?|walks? through": "package, layout",
    r"doors?|knock\w*|waiting_room|admitted|FewTries": "limiter, attempts, login limit",
    r"class Look|(?<!full_)look_at\w*|LOOK_AT\w*|Seen|(?:last|full|next) looks?": "TaskCursor, poll, full scan; hashes",
    r"class Memory|remember\w*|believ\w+|beliefs?|read_note|Copied": "cache, store, evict; prior",
    r"Kept|Shelf|shel(?:f|ves)": "SingleFlightCache, cache_dir, BlobStore",
    r"doubt\w*|spoils?": "uncertain",
    r"one_at_a_time|callers_at_once|expect_many_callers|widen": "per_item, max_concurrency, set_pool_size",
    r"make_hold|holds? for ever": "write_if_changed; permanent",
    r"(?<!side by )sides?(?! by side)": "split",
    r"""(?<!["`])divisions?(?!["`])""": "split_config",
    r"double tasks|without_(?:doubles|copies)": "duplicates",
    r"strangers?|hopeless|_nobodys|FORGOTTEN|other makers": "unassigned, unknown, recently failed, external",
    r"figures": "metrics, plots, numbers",
    r"promised|honest\w*|certainty": "confidence, calibrated",
    r"[Cc]ontend\w*|ours|theirs": "candidate, challenger, champion",
    r"Ill|[Mm]end(?:s|ed|ing)?": "failure, fix, correct",
    r"what (?:people|they) did|hours saved": "usage of pre-labels, time saved",
    r"br(?:ing|ings|ought) (?:out|in line|into line)|bring_in_line|take_code|come_back|is_away|put_away": "reconcile",
    r"[«»]": "plain quotes or code marks",
    r"hand(?:s|ed|ing)?(?: it| them)? out": "assign, serve",
}
# Where such a word is the right one: files, the expression above, and the reason.
ALLOWED = (
    ("pipelines/demo/photos/*.py", "side", "left and right of a body"),
    ("pipelines/segmentation/*.py", "side", "edges of an image, of a shape"),
    ("pipelines/labelstudio/*.py", "side", "edges of an image"),
    ("docs/adr/*.md", "figures", "numbers in prose"),
    ("docs/results.md", "ours", "a column of benchmarks"),
    ("pipelines/labelstudio/*.py", "doubt", "what a person says about a photo"),
    ("pipelines/labelstudio_site/page/*", "doubt", "likewise"),
    ("pipelines/quality/*.py", "doubt", "likewise"),
    ("pipelines/cli/remarks.py", "doubt", "likewise"),
    ("dags/remarks.py", "doubt", "likewise"),
    ("pipelines/local_stack/status.py", "doubt", "likewise"),
    ("docs/*.md", "doubt", "likewise"),
    ("pipelines/segmentation/proposals.py", "certainty", "the name of a feature in proposals.json"),
)
VARIABLES = {"one", "found", "this", "there", "here"}
WRONG_FIRST_WORDS = re.compile(r"(?:Gives?|Tells?)\b")


def words_in(path: Path) -> Iterator[str]:
    """Yield each place of a file where an avoided word stands, with what to write instead."""
    name = path.relative_to(PROJECT_ROOT).as_posix()
    allowed = [word for pattern, word, _ in ALLOWED if fnmatch(name, pattern)]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for expression, instead in INSTEAD_OF.items():
            if any(word in expression for word in allowed):
                continue
            if match := re.search(rf"(?<![A-Za-z])(?:{expression})(?![A-Za-z])", line):
                yield f"{name}:{number}: {match[0]!r}; write: {instead}"


def names_in(path: Path) -> Iterator[str]:
    """Yield each docstring of a Python file that begins with "Give" or "Tell", and each variable without content."""
    name = path.relative_to(PROJECT_ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if WRONG_FIRST_WORDS.match(ast.get_docstring(node) or ""):
                yield f"{name}:{node.lineno}: {node.name}: begin the docstring with Return, Raise, Write, Check, …"
        elif isinstance(node, ast.arg) and node.arg in VARIABLES:
            yield f"{name}:{node.lineno}: {node.arg}: name what the argument holds"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VARIABLES:
            yield f"{name}:{node.lineno}: {node.id}: name what the variable holds"
