"""Reading files of captions, and finding the images that they refer to."""

import collections
import csv
import json
import os
import pathlib
from collections.abc import Iterator

from cbalign.errors import UserError

IMAGE_COLUMNS = (
    "image",
    "file",
    "filename",
    "file_name",
    "filepath",
    "path",
    "image_path",
    "image_name",
    "image_file",
    "img",
    "image_id",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "sentence", "sentences", "comment", "description")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_MAX_FIELD = 2**24


def read_pairs(file: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Yields (image as written in the file, caption), one pair per caption; either may be empty.

    CSV and TSV need a header. JSON is a list of objects, JSON Lines has one object per line; in both, a caption may be
    a list of captions. Columns are recognized by common names, ignoring case.

    Raises:
      UserError: the file is missing, of an unknown type, not UTF-8, malformed, or lacks one of the two columns.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        raise UserError(f"the caption file {path} does not exist")
    kind = path.suffix.lower()
    if kind not in (*_DELIMITERS, *_JSON_LINES, ".json"):
        raise UserError(f"the caption file {path} has an unknown type: use .csv, .tsv, .jsonl or .json")
    try:
        if kind in _DELIMITERS:
            yield from _read_table(path, _DELIMITERS[kind])
        else:
            yield from _read_json_lines(path) if kind in _JSON_LINES else _read_json(path)
    except UnicodeDecodeError as error:
        raise UserError(f"the caption file {path} is not UTF-8 ({error.reason}): save it as UTF-8") from None


def _read_table(path: pathlib.Path, delimiter: str) -> Iterator[tuple[str, str]]:
    csv.field_size_limit(_MAX_FIELD)
    # utf-8-sig: spreadsheets write a byte-order mark before the first column name.
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter)
        try:
            image, caption = _columns(reader.fieldnames or [], str(path))
            for row in reader:
                yield _text(row[image]), _text(row[caption])
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from None


def _read_json_lines(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield from _read_record(_parse(line, path, number), f"{path}, line {number}")


def _read_json(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    records = _parse(path.read_text(encoding="utf-8-sig"), path)
    if not isinstance(records, list):
        raise UserError(f'{path} does not contain a JSON list: expected [{{"image": …, "caption": …}}, …]')
    for number, record in enumerate(records, 1):
        yield from _read_record(record, f"{path}, record {number}")


def _parse(text: str, path: pathlib.Path, line: int | None = None):
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise UserError(f"{path}, line {line or getattr(error, 'lineno', 1)}: invalid JSON ({reason})") from None


def _read_record(record, where: str) -> Iterator[tuple[str, str]]:
    if not isinstance(record, dict):
        raise UserError(f'{where}: expected an object such as {{"image": …, "caption": …}}')
    image, caption = _columns(list(record), where)
    captions = record[caption] if isinstance(record[caption], list) else [record[caption]]
    # A record without captions still counts as a skipped row.
    for one in captions or [""]:
        yield _text(record[image]), _text(one)


def _columns(names: list[str], where: str) -> tuple[str, str]:
    """Finds the two columns; names earlier in the lists above take precedence."""
    lower = {name.strip().lower(): name for name in names if name}
    image = next((lower[name] for name in IMAGE_COLUMNS if name in lower), None)
    caption = next((lower[name] for name in CAPTION_COLUMNS if name in lower), None)
    if image is None or caption is None:
        lacking = "image (such as image or file)" if image is None else "caption (such as caption or text)"
        raise UserError(f"{where}: no column for the {lacking}; found {', '.join(map(repr, names)) or 'nothing'}")
    return image, caption


def _text(value) -> str:
    return "" if value is None else str(value).strip()


class ImageFinder:
    """Finds image files below a folder, even if the caption file refers to them by paths of another machine."""

    def __init__(self, folder: str | os.PathLike):
        """Initializes with a folder, which is listed only when a path is not found directly.

        Raises:
          UserError: the folder does not exist.
        """
        self.folder = pathlib.Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"the image folder {folder} does not exist")
        self._by_name: dict[str, list[pathlib.Path]] | None = None

    def find(self, written: str) -> pathlib.Path | None:
        """Returns the file that a path refers to, or None.

        First the path itself is tried, relative to the folder unless absolute; then the file below the folder that
        shares the most trailing components with it (at least the last, with or without extension), if it is unique.
        """
        if not written:
            return None
        direct = os.path.normpath(os.path.join(self.folder, written))
        if os.path.isfile(direct):
            return pathlib.Path(direct)
        parts = [part for part in written.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts:
            return None
        candidates = self._named(parts[-1])
        scores = [_common_tail(parts[:-1], file.relative_to(self.folder).parts[:-1]) for file in candidates]
        best = [file for file, score in zip(candidates, scores) if score == max(scores)]
        return best[0] if len(best) == 1 else None

    def _named(self, name: str) -> list[pathlib.Path]:
        if self._by_name is None:
            self._by_name = collections.defaultdict(list)
            for folder, _, files in os.walk(self.folder):
                for file in files:
                    path = pathlib.Path(folder, file)
                    for key in {file, path.stem}:
                        self._by_name[key].append(path)
        return self._by_name.get(name, [])


def _common_tail(left, right) -> int:
    length = 0
    for one, other in zip(reversed(left), reversed(right)):
        if one != other:
            break
        length += 1
    return length
