"""Reading official annotation files, with one-line errors for malformed ones."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

from cbalign.errors import UserError
from cbalign.storage import parse_json


def read_json(path: pathlib.Path, kind: type, condense: Callable[[dict], object] | None = None):
    """Reads a JSON file.

    Args:
      path: the file.
      kind: `dict` or `list`, the type of the content.
      condense: replaces each object as soon as it is parsed, which keeps the memory use of large files low.

    Returns:
      The content.

    Raises:
      UserError: the file is not JSON, not UTF-8, or of another type.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            content = parse_json(stream.read(), object_hook=condense)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): download it again") from None
    if not isinstance(content, kind):
        raise UserError(f"{path} does not hold a JSON {'list' if kind is list else 'object'}: is it the official file?")
    return content


def read_json_lines(path: pathlib.Path) -> Iterator[dict]:
    """Yields the objects of a JSON-lines file.

    Raises:
      UserError: a line is not a JSON object, or the file is not UTF-8.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    content = parse_json(line)
                    if not isinstance(content, dict):
                        raise UserError(f"{path}, line {number}: not a JSON object; is it the official file?")
                    yield content
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); download it again") from None


@contextlib.contextmanager
def checking_fields(path: pathlib.Path) -> Iterator[None]:
    """Turns the exception that a missing or malformed field causes within the block into a one-line error.

    Args:
      path: the file that is read.

    Raises:
      UserError: in place of the exception.
    """
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path} does not have the official format: the field {error} is missing") from error
    except (TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path} does not have the official format: {error}") from error
