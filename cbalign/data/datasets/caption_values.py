"""Which values of a caption file are captions and image names, and why the others are not."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from typing import Any

EMPTY, NULL, NOT_TEXT, TOKENS = "empty caption", "caption is null", "caption is no text", "caption is a list of tokens"
NO_NAME = "no image named"

# What pandas and spreadsheets write for, and read as, a missing value; compared in lower case.
_NULLS = frozenset(
    (
        *("#n/a", "#n/a n/a", "#na", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "<na>", "n/a", "na", "nan"),
        *("nat", "none", "null", "nil", "undefined"),
    )
)
# Keys under which an object holds its text: Karpathy's sentences, COCO's annotations, others.
_TEXT_KEYS = ("raw", "caption", "text", "sentence", "value", "captions", "sentences", "texts")
# Keys under which an object names its image, as in Hugging Face's data sets.
_NAME_KEYS = ("path", "file_name", "filename", "file", "name")
# Two strings side by side in a printed numpy array; Python would join them.
_NO_COMMA = re.compile(r"""(['"])\s+(?=['"])""")
_MAX_LITERAL = 1 << 20
# From so many words on, a list of single words within a list counts as a caption split into tokens.
_MIN_TOKENS = 3


@dataclasses.dataclass
class Texts:
    """The captions in a value, and the faults of what else it holds.

    Attributes:
      found: captions without surrounding white space, none empty.
      faults: one for each part of the value that is no caption: a constant of this module, with the value behind it.
    """

    found: list[str] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)


def texts_in(value: Any) -> Texts:
    """The captions in a value as JSON, CSV and pandas give it.

    A text is a caption; a list holds captions, an object has one under `raw`, `caption` or the like. A text that is a
    printed list, as `str` and pandas write it, is read as that list. Null, NaN, the words that stand for them, numbers
    and truth values are no captions.
    """
    texts = Texts()
    try:
        _collect(value, texts, depth=0)
    except RecursionError:
        return Texts(faults=[f"{NOT_TEXT} (nested too deeply)"])
    return texts


def image_name(value: Any) -> str:
    """The image that a value names, "" where it names none; an object names it under `path` or the like."""
    try:
        return _image_name(value)
    except RecursionError:
        return ""


def _image_name(value: Any) -> str:
    if isinstance(value, dict):
        return next((name for key in _NAME_KEYS if (name := _image_name(value.get(key)))), "")
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float):
        # pandas turns a column of numbers with gaps into fractions.
        return str(int(value)) if math.isfinite(value) and value == int(value) else ""
    if isinstance(value, list):
        return _image_name(value[0]) if len(value) == 1 else ""
    name = str(value).strip()
    return "" if name.lower() in _NULLS else name


def is_valid(text: str) -> bool:
    """Whether a text can be written: half of a surrogate pair, as JSON may hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _collect(value: Any, texts: Texts, depth: int) -> None:
    if isinstance(value, str):
        _collect_text(value.strip(), texts, depth)
    elif value is None or (isinstance(value, float) and math.isnan(value)):
        texts.faults.append(NULL)
    elif isinstance(value, dict):
        key = next((key for key in _TEXT_KEYS if key in value), None)
        if key is None:
            texts.faults.append(f"{NOT_TEXT} ({_shown(value)})")
        else:
            _collect(value[key], texts, depth)
    elif isinstance(value, (list, tuple)):
        _collect_list(value, texts, depth)
    else:
        texts.faults.append(f"{NOT_TEXT} ({_shown(value)})")


def _collect_list(values: list | tuple, texts: Texts, depth: int) -> None:
    if not values:
        texts.faults.append(EMPTY)
    elif depth and len(values) >= _MIN_TOKENS and all(isinstance(v, str) and len(v.split()) == 1 for v in values):
        texts.faults.append(f"{TOKENS} ({_shown(values)})")
    else:
        for value in values:
            _collect(value, texts, depth + 1)


def _collect_text(text: str, texts: Texts, depth: int) -> None:
    if not text:
        texts.faults.append(EMPTY)
    elif text.lower() in _NULLS:
        texts.faults.append(f"{NULL} ({text})")
    elif not is_valid(text):
        texts.faults.append(f"{NOT_TEXT} ({_shown(text)!r})")
    elif (printed := _printed_value(text)) is None:
        texts.found.append(text)
    elif printed is _UNREADABLE:
        texts.faults.append(f"{NOT_TEXT} ({_shown(text)})")
    else:
        _collect(printed, texts, depth)


_UNREADABLE = object()


def _printed_value(text: str) -> Any:
    """The list, object or bytes that a text prints; `_UNREADABLE` for one that cannot be read back, None for others."""
    if text[:6] == "array(":
        return _UNREADABLE
    if not (text[0] + text[-1] in ("[]", "{}", "()") or re.fullmatch(r"b(['\"]).*\1", text, re.DOTALL)):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _literal(text)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if not isinstance(value, (list, dict, tuple)):
        # What begins like a printed list or object and is none was cut, or printed by a library of its own.
        return _UNREADABLE if re.match(r"[\[({]\s*['\"\[{]", text) else None
    if value and not isinstance(value, dict) and not any(map(_is_content, value)):
        return None  # "[2]" may well be a caption, or a part of one
    return _UNREADABLE if _NO_COMMA.search(text) else value


def _is_content(item: Any) -> bool:
    return item is None or isinstance(item, (str, list, dict, tuple)) or item != item


def _literal(text: str) -> Any:
    if len(text) > _MAX_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _shown(value: Any) -> str:
    try:
        shown = str(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list ...
        shown = "too long to be shown"
    return shown if len(shown) <= 40 else f"{shown[:40]}…"
