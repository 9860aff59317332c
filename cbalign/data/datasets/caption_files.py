"""Reading files of captions: which image has which caption, and which rows have none."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from cbalign.data.datasets import caption_objects, caption_tables
from cbalign.data.datasets.caption_columns import find_columns, folder_column, has_columns, note_columns
from cbalign.data.datasets.caption_values import NO_NAME, image_name, texts_in
from cbalign.errors import UserError


class Pair(NamedTuple):
    """A row of a caption file, or one of several captions in it.

    Attributes:
      image: the image as written; "" where none is named.
      caption: "" where there is none.
      fault: why the row cannot be used; "" where it can. What follows in parentheses is the value found.
      spare: whether the same row has other captions that can be used.
    """

    image: str
    caption: str
    fault: str = ""
    spare: bool = False


def read_pairs(file: str | os.PathLike, notes: list[str] | None = None) -> Iterator[Pair]:
    """Yields a `Pair` per caption, and one with its fault per row or value that is no caption.

    Tables (.csv, .tsv, .txt) need a header; their separator is found by it. JSON, JSON Lines and Parquet: see
    `caption_objects.read_objects`; in them a caption may be a list of captions or an object with one. Columns are
    recognized by common names, ignoring case.

    Args:
      file: the file.
      notes: receives remarks on what was chosen: the columns, the separator.

    Raises:
      UserError: the file is missing, of an unknown type, not text, malformed, lacks one of the two columns or has one
        twice, or a row of a table has more or fewer fields than its header.
    """
    path, notes = pathlib.Path(file), [] if notes is None else notes
    if not path.is_file():
        raise UserError(f"the caption file {path} does not exist")
    kind = path.suffix.lower()
    objects = (".json", *caption_objects.LINES, *caption_objects.PARQUET)
    if kind not in (*caption_tables.SUFFIXES, *objects):
        raise UserError(f"the caption file {path} has an unknown type: use .csv, .tsv, .jsonl, .json or .parquet")
    try:
        yield from _read_objects(path, notes) if kind in objects else _read_table(path, notes)
    except UnicodeDecodeError as error:
        raise caption_tables.undecodable(path, error) from None


def _read_table(path: pathlib.Path, notes: list[str]) -> Iterator[Pair]:
    table = caption_tables.read_table(path, has_columns)
    image, caption = find_columns(table.header, str(path))
    note_columns(notes, table.header, image, caption)
    if table.separator != caption_tables.SUFFIXES[path.suffix.lower()]:
        notes.append(f"fields of {path.name} are separated by {table.separator!r}")
    folder = folder_column(table.header, image)
    for _, row in table.rows:
        yield from _pairs(dict(zip(table.header, row)), image, caption, folder)


def _read_objects(path: pathlib.Path, notes: list[str]) -> Iterator[Pair]:
    told: set[tuple] = set()
    for where, record in caption_objects.read_objects(path, has_columns):
        if not isinstance(record, dict):
            raise UserError(f'{where}: expected an object such as {{"image": …, "caption": …}}')
        names = list(record)
        image, caption = find_columns(names, where)
        if (image, caption) not in told:
            told.add((image, caption))
            note_columns(notes, names, image, caption)
            if isinstance(record[image], dict) and record[image].get("bytes"):
                notes.append(f"{path.name} holds images itself; they are not read: write them to --images as files")
        yield from _pairs(record, image, caption, folder_column(names, image))


def _pairs(record: dict[str, Any], image: str, caption: str, folder: str | None) -> Iterator[Pair]:
    name = image_name(record[image])
    if folder is not None and name and "/" not in name and (parent := image_name(record[folder])):
        name = f"{parent}/{name}"
    texts = texts_in(record[caption])
    if not name:
        yield from (Pair("", text, NO_NAME) for text in texts.found or [""])
        return
    yield from (Pair(name, text) for text in texts.found)
    yield from (Pair(name, "", fault, spare=bool(texts.found)) for fault in texts.faults)
