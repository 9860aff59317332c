"""Reading captions from JSON, JSON Lines and Parquet, in the shapes that data sets come in."""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from cbalign.data.datasets.caption_tables import encoding_of
from cbalign.errors import UserError
from cbalign.storage import parse_json

LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
# Keys under which a file keeps its list of objects.
_LISTS = ("data", "images", "samples", "records", "items", "annotations")
_SUFFIX = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|avif|heic)$", re.IGNORECASE)


def read_objects(path: pathlib.Path, names_columns) -> Iterator[tuple[str, dict]]:
    """Yields (where it stands, object) of a JSON, JSON Lines or Parquet file.

    JSON is a list of objects, such a list under a key (Karpathy's `images`), COCO's `images` with `annotations`, an
    object of columns as pandas writes it, or an object of captions by image.

    Args:
      path: the file.
      names_columns: list of names -> whether the columns wanted are among them.

    Raises:
      UserError: the file is malformed, or has none of these shapes.
    """
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        yield from _read_parquet(path)
    elif (suffix in LINES) != _misnamed(path, suffix):
        yield from _read_lines(path)
    else:
        content = _parse(path.read_text(encoding=encoding_of(path)).removeprefix("\ufeff"), path)
        for number, record in enumerate(_records(content, path, names_columns), 1):
            yield f"{path}, record {number}", record


def _misnamed(path: pathlib.Path, suffix: str) -> bool:
    """Whether a .jsonl file is one list after all, or a .json file has an object on each line."""
    with path.open(encoding=encoding_of(path)) as stream:
        lines = (line.strip("\ufeff \t\r\n") for line in stream)
        first, second = [*itertools.islice(filter(None, lines), 2), "", ""][:2]
    if suffix in LINES:
        return re.match(r"\[\s*(\{|$)", first) is not None
    return first.startswith("{") and first.endswith("}") and second.startswith("{")


def _read_lines(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    with path.open(encoding=encoding_of(path)) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip("\ufeff \t\r\n"):
                yield f"{path}, line {number}", _parse(line.removeprefix("\ufeff"), path, number)


def _read_parquet(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"to read {path} pyarrow is needed: pip install pyarrow, or save the table as CSV") from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, record {number}", record
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{path} is truncated or no Parquet file ({reason}); copy or download it again") from None


def _parse(text: str, path: pathlib.Path, line: int | None = None) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            where = f"{path}, line {line}" if line else f"{path}"
            raise UserError(f"{where}: an object names {twice!r} twice ({text[:60].strip()!r}); remove or rename one")
        return found

    try:
        return parse_json(text, object_pairs_hook=unique)
    except ValueError as error:
        # Not every one is a JSONDecodeError: a number of thousands of digits, what is nested too deeply.
        reason = getattr(error, "msg", str(error))[:80]
        raise UserError(f"{path}, line {line or getattr(error, 'lineno', 1)}: invalid JSON ({reason})") from None


def _records(content: Any, path: pathlib.Path, names_columns) -> list:
    """The objects in the content of a JSON file."""
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
            return _of_coco(content, path)
        if names_columns(list(content)):
            return _of_columns(content, path)
        if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
            return _of_split(content, path)
        for key in _LISTS:
            if isinstance(content.get(key), list) and content[key]:
                return content[key]
        if content and all(_SUFFIX.search(name) for name in content):
            return [{"image": name, "caption": captions} for name, captions in content.items()]
    found = (
        f"an object with {', '.join(map(repr, list(content)[:4]))}" if isinstance(content, dict) else "something else"
    )
    raise UserError(
        f'{path} does not contain a JSON list: expected [{{"image": …, "caption": …}}, …], COCO\'s images and '
        f"annotations, or captions by image; found {found}"
    )


def _of_split(content: dict, path: pathlib.Path) -> list[dict]:
    """What pandas calls "split": names of the columns, and a list for each row."""
    names = content["columns"]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: its columns must be named by texts; rename them")
    for number, row in enumerate(content["data"], 1):
        if not isinstance(row, list) or len(row) != len(names):
            raise UserError(f"{path}, record {number}: not a list of {len(names)} values, one a column; complete it")
    return [dict(zip(names, row)) for row in content["data"]]


def _of_coco(content: dict, path: pathlib.Path) -> list[dict]:
    """COCO's format: captions name their images by number; an image without captions counts as a row without one."""
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        rows = [
            {"image": names.get(entry["image_id"], f"image_id {entry['image_id']}"), "caption": entry.get("caption")}
            for entry in content["annotations"]
        ]
        captioned = {row["image"] for row in rows}
        rest = [{"image": name, "caption": None} for name in names.values() if name not in captioned]
    except KeyError as error:
        raise UserError(f"{path} has COCO's images and annotations, but lacks {error} in one of them") from None
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path} has COCO's images and annotations, but one of them is malformed ({error})") from None
    if rows and all(row["caption"] is None for row in rows):
        raise UserError(f"{path} has no captions in its annotations: take COCO's file of captions, not of instances")
    return rows + rest


def _of_columns(content: dict, path: pathlib.Path) -> list[dict]:
    """An object of columns, each a list or, as pandas writes it, an object by row number."""
    if all(isinstance(values, dict) for values in content.values()):
        keys = list(dict.fromkeys(key for values in content.values() for key in values))
        return [{name: values.get(key) for name, values in content.items()} for key in keys]
    if all(isinstance(values, list) for values in content.values()):
        lengths = {name: len(values) for name, values in content.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(f"{path} holds columns of different lengths ({told}); complete them")
        return [dict(zip(content, row)) for row in zip(*content.values())]
    return [content]
