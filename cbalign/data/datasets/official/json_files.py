"""Reading the official JSON files, with one clear line for what is not as it should be."""

import json
import pathlib
from collections.abc import Callable, Iterator

from cbalign.errors import UserError


def read_json(path: pathlib.Path, kind: type, condense: Callable[[dict], object] | None = None):
    """Returns the content of a JSON file.

    Args:
      path: the file.
      kind: `dict` or `list`, which the content must be.
      condense: replaces every object as soon as it is read, so that large files do not fill the memory.

    Raises:
      UserError: the file is not JSON, not UTF-8, or of another kind.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            content = json.load(stream, object_hook=condense)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): fetch it anew") from None
    if not isinstance(content, kind):
        raise UserError(f"{path} holds no JSON {'list' if kind is list else 'object'}: is it the official file?")
    return content


def read_json_lines(path: pathlib.Path) -> Iterator[dict]:
    """Yields the objects of a file that has one a line.

    Raises:
      UserError: a line is not a JSON object, or the file is not UTF-8.
    """
    number = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    content = json.loads(line)
                    if not isinstance(content, dict):
                        raise UserError(f"{path}, line {number}: no JSON object; is it the official file?")
                    yield content
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); fetch it anew") from None


class fields_of:
    """Turns a field that is lacking, or of another shape, into one clear line; a context around the reading."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if kind in (KeyError, TypeError, AttributeError, IndexError, ValueError):
            what = f"the field {error} is lacking" if kind is KeyError else str(error)
            raise UserError(f"{self._path} is not shaped as the official file: {what}") from error
