"""Labels of other datasets by name: which label of params.yaml each one is."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipelines.errors import ConfigurationError
from pipelines.params import IGNORE, Params

# What other tools call what we call background, and what we ignore; a label of params.yaml by such a name comes first.
_BACKGROUND, _IGNORED = ("background", "_background_"), ("ignore", "ignored", "void", "unclear")


class LabelNames:
    """Joins names with the labels of params.yaml.

    A name is looked up in `renames` first, then as it is, then without regard to case, spaces and Unicode form if that
    fits only one label; "background" and "ignore" or "void" mean what they say.
    """

    def __init__(self, params: Params, renames: Mapping[str, str] | None = None) -> None:
        """Take `renames` from other names to labels; raise ConfigurationError when such a label is unknown."""
        self.compile = params.compile  # for formats whose regions are compiled as the project's own
        self._exact: dict[str, int] = dict(params.region_ids)
        self._renames: dict[str, int] = {}  # by folded name
        self._folded: dict[str, set[int]] = defaultdict(set)
        for name, label_id in params.region_ids.items():
            self._folded[_fold(name)].add(label_id)
        for names, label_id in ((_BACKGROUND, 0), (_IGNORED, IGNORE)):
            for name in names:
                self._folded.setdefault(name, {label_id})
        meanings = {name: (label, 0 if not label else self.id_of(label)) for name, label in (renames or {}).items()}
        if unknown := sorted({label for label, label_id in meanings.values() if label_id is None}):
            raise ConfigurationError(f"the table of labels names labels that {NOT_IN_PARAMS} {', '.join(unknown)}")
        known = {name: label_id for name, (_, label_id) in meanings.items() if label_id is not None}
        self._exact |= known
        self._renames = {_fold(name): label_id for name, label_id in known.items()}

    def id_of(self, name: str) -> int | None:
        """Return the id of params.yaml, 0 for background, `IGNORE`, or None for an unknown or ambiguous name."""
        name = name.strip()
        if name in self._exact:
            return self._exact[name]
        folded = _fold(name)
        if folded in self._renames:
            return self._renames[folded]
        ids = self._folded.get(folded, set())
        return next(iter(ids)) if len(ids) == 1 else None

    def require_id(self, name: str) -> int:
        """Return the id; raise ConfigurationError for a name without one."""
        label_id = self.id_of(name)
        if label_id is None:
            raise unknown_labels({name: []})
        return label_id


NOT_IN_PARAMS = "params.yaml does not have:"


def unknown_labels(photos_of_label: Mapping[str, list[str]]) -> ConfigurationError:
    """Return an error that names labels that params.yaml does not have, each with the photos that show it."""
    examples = []
    for label, photos in sorted(photos_of_label.items()):
        plural = "s" if len(photos) > 1 else ""
        examples.append(f"{label!r} on {len(photos)} photo{plural}, such as {photos[0]}" if photos else repr(label))
    label = min(photos_of_label)
    return ConfigurationError(
        f"labels that {NOT_IN_PARAMS} {'; '.join(examples)}. Give a CSV with the columns name and label as --labels: "
        f"`{label},coat` for a label of params.yaml, `{label},ignore` for what is neither learned nor evaluated, or "
        f"`{label},background`"
    )


def read_renames(path: Path) -> dict[str, str]:
    """Read a CSV with the columns `name` and `label`: names of another dataset, and what they are here.

    Raise ConfigurationError naming what is wrong with it.
    """
    table = read_table(path, "name", "label")
    names = table["name"].str.strip()
    if twice := sorted(set(names[names.map(_fold).duplicated()])):
        raise ConfigurationError(f"{path} has several lines for the name {', '.join(twice)}; keep one each")
    return dict(zip(names, table["label"].str.strip(), strict=True))


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """Read a CSV of texts with at least these columns; raise ConfigurationError naming what is wrong with it."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} does not exist; give a CSV with the columns {' and '.join(columns)}"
        ) from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors, and so are bytes that are no text
        raise ConfigurationError(f"{path} is no CSV table with a header row: {error}") from error
    if not set(columns) <= set(table.columns):
        raise ConfigurationError(
            f"{path} needs the columns {' and '.join(columns)}; it has {', '.join(map(str, table.columns))}"
        )
    return table.fillna("")


def _fold(name: str) -> str:
    return "".join(unicodedata.normalize("NFC", name).casefold().split())
