"""What people should know once a catalogue's rows are compared with all photos: what fits nothing, and why."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pipelines.ingest.catalog_names import CatalogRow, HintKind, Hints, Match, PhotoName, name_of_id, name_of_photo

_EXAMPLES = 5
_SHOWN_LETTERS = 80
_REASONS: dict[HintKind, str] = {
    "number": "A spreadsheet has probably changed the numbers: save the column id_file as text",
    "folder": "The ids probably name folders in which the photos are not: write paths in the bucket, or names alone",
    "spelling": "The ids are probably spelled in another way than the photos' names",
}
_WHAT_IS_WRONG: dict[HintKind, str] = {
    "number": "a spreadsheet may have changed the number; write {} there, in a column of texts",
    "folder": "that is another folder or a longer path; write {} there if it is meant",
    "spelling": "that is spelled in another way; write {} there if it is meant",
}
_OTHER_COLUMN = (
    "The column id_file must hold the photo's file name or its path. If another column does, name it in params.yaml, "
    "such as ingest.columns: {id_file: ...}"
)


def remarks_on_matches(rows: Sequence[CatalogRow], matches: Mapping[str, Match]) -> list[tuple[str, str]]:
    """Return remarks as an object name and a message; without an object name they are about the catalogue.

    `matches` holds all photos by object name. There are sums of the rows and photos that fit nothing, a remark for each
    id that fits several photos, and one for each photo without a row for which a row with a similar id may be meant.
    """
    photos_of: dict[int, list[str]] = {}
    for name, match in sorted(matches.items()):
        for row in match.rows:
            photos_of.setdefault(row, []).append(name)
    unfit = [index for index in range(len(rows)) if index not in photos_of]
    several = list(_ids_of_several(rows, photos_of))
    hints, kinds = _hints(rows, matches, unfit)
    sums = [*_sums(rows, matches, unfit, kinds)]
    if several:
        sums.append(f"{_count(len(several), 'id fits', 'ids fit')} more than one photo, which all show its rows")
    return [*(("", message) for message in sums), *several, *hints]


def _sums(
    rows: Sequence[CatalogRow], matches: Mapping[str, Match], unfit: Sequence[int], kinds: Counter[HintKind]
) -> Iterator[str]:
    without = sorted(name for name, match in matches.items() if not match.rows)
    loose = sorted((name, match.rows[0]) for name, match in matches.items() if match.loose)
    ids = ", ".join(f"{_id(rows[index])} (line {rows[index].line})" for index in unfit[:_EXAMPLES])
    photos = ", ".join(without[:_EXAMPLES])
    if len(unfit) == len(rows):
        reason = _REASONS[kinds.most_common(1)[0][0]] if kinds else _OTHER_COLUMN
        yield (
            f"0 of {len(rows):,} rows fit a photo, so that no photo shows details. Ids look like {ids}; photos are "
            f"named {photos}. {reason}"
        )
    elif unfit:
        yield f"{len(unfit):,} of {_count(len(rows), 'row fits', 'rows fit')} no photo, such as {ids}"
    if without:
        yield f"{len(without):,} of {_count(len(matches), 'photo has', 'photos have')} no row, such as {photos}"
    if loose:
        examples = ", ".join(f"{name} ({_id(rows[row])}, line {rows[row].line})" for name, row in loose[:_EXAMPLES])
        yield (
            f"{_count(len(loose), 'photo fits its row', 'photos fit their rows')} only when case and suffix are "
            f"ignored: {examples}"
        )


def _ids_of_several(rows: Sequence[CatalogRow], photos_of: Mapping[int, list[str]]) -> Iterator[tuple[str, str]]:
    """Yield a remark for each id whose rows fit several photos, at the first of these."""
    seen: set[PhotoName | None] = set()
    for row, photos in sorted(photos_of.items()):
        name = name_of_id(rows[row].id_file) if len(photos) > 1 else None
        if name and name not in seen:
            seen.add(name)
            more = f" and {len(photos) - _EXAMPLES} more" if len(photos) > _EXAMPLES else ""
            yield (
                photos[0],
                f"the id_file {_id(rows[row])} (line {rows[row].line}) fits {len(photos)} photos: "
                f"{', '.join(photos[:_EXAMPLES])}{more}. If the row describes one of them, write its path there",
            )


def _hints(
    rows: Sequence[CatalogRow], matches: Mapping[str, Match], unfit: Sequence[int]
) -> tuple[list[tuple[str, str]], Counter[HintKind]]:
    """Return a remark for each photo without a row for which an id may be meant, and how often ids differ in what."""
    hints = Hints((index, name) for index in unfit if (name := name_of_id(rows[index].id_file)))
    remarks: list[tuple[str, str]] = []
    kinds: Counter[HintKind] = Counter()
    for object_name, match in sorted(matches.items()):
        name = name_of_photo(object_name)
        if match.ambiguous:
            ids = _at_lines(rows, match.ambiguous)
            message = f"{ids}: they differ from its name in case or suffix, and from each other, so that none counts"
            remarks.append((object_name, message))
        elif not match.rows and (hint := hints.for_photo(name)):
            kind, similar = hint
            kinds[kind] += 1
            wanted = name.stem if kind == "folder" else name.last
            message = f"{_at_lines(rows, similar)}, which may be this photo: {_WHAT_IS_WRONG[kind].format(wanted)}"
            remarks.append((object_name, message))
    return remarks, kinds


def _at_lines(rows: Sequence[CatalogRow], indices: Sequence[int]) -> str:
    places = [f"line {rows[index].line} has the id_file {_id(rows[index])}" for index in indices[:3]]
    more = f" and {len(indices) - 3} more lines" if len(indices) > 3 else ""
    return " and ".join(places) + more


def _id(row: CatalogRow) -> str:
    return row.id_file if len(row.id_file) <= _SHOWN_LETTERS else f"{row.id_file[:_SHOWN_LETTERS]}…"


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"
