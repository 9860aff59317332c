"""Columns of strings, stored end to end: one a record, or several."""

from __future__ import annotations

import collections.abc
import dataclasses

import numpy as np


class _Column(collections.abc.Sequence):
    """A sequence of n values, each made when it is asked for; a slice gives a list."""

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self._value(i) for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._value(number % len(self))

    def __iter__(self):
        return map(self._value, range(len(self)))


@dataclasses.dataclass(eq=False)
class Strings(_Column):
    """n strings.

    Attributes:
      data: uint8 [b], the strings in UTF-8; string i is bytes offsets[i] to offsets[i + 1].
      offsets: int64 [n + 1].
    """

    data: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _value(self, number: int) -> str:
        start, end = self.offsets[number], self.offsets[number + 1]
        return self.data[start:end].tobytes().decode("utf-8", errors="replace")

    def part(self, start: int, end: int) -> Strings:
        """Strings `start` to `end`, without a copy."""
        return Strings(self.data, self.offsets[start : end + 1])

    @classmethod
    def join(cls, parts: list[Strings]) -> Strings:
        """The strings of several columns, one after another."""
        data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate(data), chained([part.offsets for part in parts]))


@dataclasses.dataclass(eq=False)
class StringLists(_Column):
    """n lists of strings.

    Attributes:
      strings: all of them, those of a list next to one another.
      offsets: int64 [n + 1]; list i holds strings offsets[i] to offsets[i + 1].
    """

    strings: Strings
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _value(self, number: int) -> list[str]:
        return [self.strings[i] for i in range(self.offsets[number], self.offsets[number + 1])]

    def part(self, start: int, end: int) -> StringLists:
        """Lists `start` to `end`, without a copy of the strings."""
        first, last = self.offsets[start], self.offsets[end]
        return StringLists(self.strings.part(first, last), self.offsets[start : end + 1] - first)

    @classmethod
    def join(cls, parts: list[StringLists]) -> StringLists:
        """The lists of several columns, one after another."""
        return cls(Strings.join([part.strings for part in parts]), chained([part.offsets for part in parts]))

    @classmethod
    def of_single(cls, strings: Strings) -> StringLists:
        """Each string as a list of its own."""
        return cls(strings, np.arange(len(strings) + 1, dtype=np.int64))


def chained(offsets: list[np.ndarray]) -> np.ndarray:
    """Offsets into pieces as offsets into the pieces end to end: int64 [sum of n_i + 1]."""
    return np.cumsum(np.concatenate([[0], *(np.diff(part) for part in offsets)]), dtype=np.int64)
