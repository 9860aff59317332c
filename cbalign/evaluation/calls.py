"""What an evaluation asks of the devices: its compiled functions, and how often each is called."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Call:
    """One compiled function of an evaluation.

    Attributes:
      name: in words, such as "encode images".
      function: the compiled function of (parameters, *whole, *rows).
      whole: trees of shapes that every device holds whole.
      rows: trees of shapes [b, ...] of one call.
      count: number of calls for a split.
      spread: whether the rows are spread over the devices of a process; otherwise one device takes them all.
      shared: whether the processes share the calls; otherwise each makes all of them.
    """

    name: str
    function: Any
    whole: tuple
    rows: tuple
    count: int
    spread: bool = True
    shared: bool = False


@dataclasses.dataclass(frozen=True)
class SplitSize:
    """What is evaluated: how many records, and how many texts they have together."""

    records: int
    texts: int


def batches(count: int, size: int) -> int:
    """Calls of `size` rows that `count` rows take."""
    return -(-count // size)
