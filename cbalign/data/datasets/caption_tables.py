"""Reading captions from tables: CSV, TSV and their relatives, in the encodings and with the separators that occur."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import pathlib
import re
from collections.abc import Iterator

from cbalign.data.datasets.caption_columns import find_columns
from cbalign.errors import UserError

SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": ",", ".tab": "\t"}
"""Suffix of a table, and the separator that is tried first."""

_SEPARATORS = (",", "\t", ";", "|")
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
# Quotation marks are part of the format in these alone; with others a field may simply begin with one.
_QUOTED = (",", ";")
_MAX_FIELD = 2**24
_MAX_LINES = 1000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 1 << 12
_TAIL = 300
_IMAGE_NAME = r"[^\"'\n]*\.(?:jpe?g|png|gif|webp|bmp|tiff?|avif|heic)"
_LOOKS_LIKE_ROW = re.compile(rf"^{_IMAGE_NAME}\s*[,;\t|]", re.IGNORECASE)
_LOOKS_LIKE_DATA = re.compile(rf"{_IMAGE_NAME}(?:#\d+)?$", re.IGNORECASE)


@dataclasses.dataclass
class Table:
    """A table whose header has been read.

    Attributes:
      header: the names of its columns, stripped.
      rows: (number of the line a row begins on, its fields, stripped, as many as the header has); consumed once.
      separator: between fields.
    """

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]
    separator: str


def encoding_of(path: pathlib.Path) -> str:
    """The encoding of a text file by its byte-order mark, or by its zero bytes where it is UTF-16 without one."""
    with path.open("rb") as stream:
        start = stream.read(_SAMPLE)
    for mark, name in _BOMS:
        if start.startswith(mark):
            return name
    zeros = [start[place::2].count(0) / max(len(start) // 2, 1) for place in (0, 1)]
    # Western text has a zero in every second byte.
    if max(zeros) > 0.3 and min(zeros) < 0.05:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def undecodable(path: pathlib.Path, error: UnicodeDecodeError) -> UserError:
    """The error for a file that is not in the encoding it seems to have, with the line where that shows."""
    where = ""
    if error.encoding.startswith("utf-8") or error.encoding == "utf_8":
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as exact:
                    where = f", line {number}: byte 0x{line[exact.start]:02x}"
                    break
    return UserError(
        f"{path} is not UTF-8 ({error.reason}{where}): save it as UTF-8, or convert it, such as with "
        f"iconv -f WINDOWS-1252 -t UTF-8"
    )


def read_table(path: pathlib.Path, has_columns) -> Table:
    """Opens a table.

    Args:
      path: the file.
      has_columns: list of names -> whether the columns wanted are among them; chooses the separator.

    Raises:
      UserError: there is no header with the columns wanted; while iterating: a row has more or fewer fields than the
        header, a quotation mark is not closed, or the file holds zero bytes.
    """
    csv.field_size_limit(_MAX_FIELD)
    lines = _Lines(path)
    first = lines.take()
    while first is not None and not first.strip():
        first = lines.take()
    first = first or ""
    default = SUFFIXES[path.suffix.lower()]
    separators = [default, *(one for one in _SEPARATORS if one != default)]
    # Excel's own note about the separator.
    if found := re.fullmatch(r'"?sep=(.)"?', first.strip()):
        separators, first = [found.group(1)], lines.take() or ""
    headers = {separator: _header(first, separator) for separator in separators}
    separator = next((one for one in separators if has_columns(headers[one])), None)
    if separator is None:
        likely = max(separators, key=lambda one: (len(headers[one]), one == default))
        _refuse_header(path, first, headers[likely], likely)
    header = headers[separator]
    make = _quoted_rows if separator in _QUOTED else _plain_rows
    return Table(header, _checked(path, header, make(path, lines, separator, len(header)), separator), separator)


class _Lines:
    """The lines of a file, with their ends, one ahead; `number` is that of the line taken last."""

    def __init__(self, path: pathlib.Path):
        self._path, self.number = path, 0
        self._lines = self._read()
        self._next: str | None = next(self._lines, None)

    def _read(self) -> Iterator[str]:
        with self._path.open(encoding=encoding_of(self._path), newline="") as stream:
            for number, line in enumerate(stream, 1):
                if "\0" in line:
                    raise UserError(f"{self._path}, line {number}: holds a zero byte: it is no text, or is damaged")
                yield line.removeprefix("\ufeff") if number == 1 else line

    def peek(self) -> str | None:
        """The next line, None at the end."""
        return self._next

    def take(self) -> str | None:
        """Takes the next line, None at the end."""
        line = self._next
        if line is not None:
            self.number += 1
            self._next = next(self._lines, None)
        return line

    def __iter__(self):
        while (line := self.take()) is not None:
            yield line


def _header(line: str, separator: str) -> list[str]:
    try:
        names = [name.strip().strip('"').strip() for name in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:  # a field of more than _MAX_FIELD characters
        return []
    while names and not names[-1]:
        names.pop()
    return names


def _refuse_header(path: pathlib.Path, line: str, header: list[str], separator: str) -> None:
    # The ends suffice, and the search takes time by the square of the length.
    if any(_LOOKS_LIKE_DATA.search(name[-_TAIL:]) for name in header):
        raise UserError(
            f"{path} has no header: its first line is {line.strip()[:60]!r}; put a line such as "
            f"{separator.join(('image', 'caption'))!r} before it"
        )
    find_columns(header, f"{path}, separated by {_NAMES.get(separator, repr(separator))}")


def _quoted_rows(path, lines: _Lines, separator: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Rows with quoted fields, as spreadsheets write them; a quoted field may hold separators and line ends."""
    del width
    # A space after the separator would otherwise hide the quotation mark behind it.
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        number = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = "a quotation mark is never closed" if "end of data" in str(error) else str(error)
            raise UserError(
                f"{path}, line {number}: {reason}; write quotation marks inside a quoted field twice, and none "
                "around half a field"
            ) from None
        for field in row:
            _check_swallowed(path, number, field)
        yield number, row


def _check_swallowed(path, number: int, field: str) -> None:
    """A quotation mark that closes only lines further down has swallowed the rows between."""
    for line in field.splitlines()[1:]:
        if _LOOKS_LIKE_ROW.match(line):
            raise UserError(
                f"{path}, line {number}: a quotation mark opens here and closes only after the line {line[:40]!r}, "
                "which looks like a row of its own; close the mark, or write it twice"
            )


def _plain_rows(path, lines: _Lines, separator: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Rows in which quotation marks are ordinary characters, unless whole fields or several lines stand in them."""
    for line in lines:
        number, row = lines.number, _split(line, separator)
        following = lines.peek()
        whole = len(row) == width and (following is None or len(_split(following, separator)) == width)
        if any(map(_opens, row)) and not whole and len(row) <= width:
            yield number, _joined(path, line, lines, separator, width)
            continue
        yield number, [_unquoted(field) for field in row]


def _split(line: str, separator: str) -> list[str]:
    fields = [field.strip() for field in line.rstrip("\r\n").split(separator)]
    return [] if fields == [""] else fields


def _opens(field: str) -> bool:
    """Whether a field begins with a quotation mark that it does not close."""
    return field.startswith('"') and len(re.findall('"', field)) % 2 == 1


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else field


def _joined(path, line: str, lines: _Lines, separator: str, width: int) -> list[str]:
    """The row that begins with a line and goes on within quotation marks."""
    number, text = lines.number, line
    while lines.number - number < _MAX_LINES and lines.peek() is not None:
        text += lines.take() or ""
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except csv.Error:
            continue
        if len(rows) == 1 and len(rows[0]) == width:
            for field in rows[0]:
                _check_swallowed(path, number, field)
            return [field.strip() for field in rows[0]]
    raise UserError(
        f"{path}, line {number}: {len(_split(line, separator))} fields, a quotation mark and no end of it; complete "
        f"the row, or write the mark twice (the line begins {line[:40]!r})"
    )


def _checked(path, header: list[str], rows, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, stripped, without blank ones; a row with more or fewer fields than the header is an error."""
    width = len(header)
    for number, row in rows:
        fields = [field.strip() for field in row]
        if not any(fields):
            continue
        while len(fields) > width and not fields[-1]:
            fields.pop()
        if len(fields) != width:
            count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            remedy = (
                f"put a caption that holds {_NAMES.get(separator, repr(separator))} in quotation marks"
                if len(fields) > width
                else "complete the row, or remove it"
            )
            raise UserError(
                f"{path}, line {number}: {count}, and the header has {width} ({', '.join(header)}); {remedy} "
                f"(the line begins {separator.join(fields)[:40]!r})"
            )
        yield number, fields
