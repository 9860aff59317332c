"""Writing files whole: a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from etils import epath


def write_atomically(path: os.PathLike | str, content: bytes | str | Callable[[Any], None]) -> epath.Path:
    """Writes a file under a temporary name beside it and renames it into place.

    Args:
      path: the file, local or in a bucket; its folder is created if needed.
      content: bytes, text (written as UTF-8), or a function that writes to an open binary file.

    Returns:
      The path.

    Raises:
      OSError: it cannot be written; the previous content, if any, is untouched and nothing is left behind.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write the same file at once: each has a temporary name of its own and the last rename wins.
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        if callable(content):
            with temporary.open("wb") as file:
                content(file)
        else:
            # Names of files need not be valid text; in JSON a backslash is how such characters are written.
            temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name_file(error, path)
        raise
    return path


def append_text(path: os.PathLike | str, text: str) -> None:
    """Appends text to a file in a folder that exists.

    Raises:
      OSError: it cannot be written; it names the file.
    """
    try:
        with epath.Path(path).open("a") as file:
            file.write(text)
    except OSError as error:
        _name_file(error, path)
        raise


def _name_file(error: BaseException, path: os.PathLike | str) -> None:
    # Where the disk is full, the operating system names no file; else it may be one under a temporary name.
    if isinstance(error, OSError):
        error.filename = os.fspath(path)


def write_json(path: os.PathLike | str, value: Any, *, indent: int | None = 2) -> epath.Path:
    """Writes a value as JSON in one piece; see `write_atomically`."""
    return write_atomically(path, json.dumps(value, indent=indent) + "\n")


def parse_json(text: str | bytes, **options: Any) -> Any:
    """The value of a JSON text, with options of `json.loads`.

    Raises:
      ValueError: it is no JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: os.PathLike | str) -> dict | None:
    """The object in a JSON file, or None where the file is missing, damaged, or holds something else."""
    try:
        value = parse_json(epath.Path(path).read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def user_cache() -> pathlib.Path:
    """The folder of this program among the user's cache files.

    Raises:
      RuntimeError: there is no home folder.
    """
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cbalign"


def remembered(kind: str, key: Any, compute: Callable[[], dict]) -> dict:
    """A result that is computed once and then read from the user's cache files.

    Where nothing can be stored, it is computed each time.

    Args:
      kind: names the folder.
      key: JSON value that determines the result.
      compute: makes the result, which JSON gives back as it is.
    """
    text = json.dumps(key, sort_keys=True)
    try:
        path = user_cache() / kind / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.json"
    except RuntimeError:
        return compute()
    stored = read_json(path)
    if stored is not None and stored.get("key") == json.loads(text):
        return stored["result"]
    result = compute()
    with contextlib.suppress(OSError):
        write_json(path, {"key": key, "result": result})
    return result
