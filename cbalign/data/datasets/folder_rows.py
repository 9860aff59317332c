"""The rows of a caption file, grouped by image, with a record of those that cannot be used."""

from __future__ import annotations

import collections
import os
import pathlib

from cbalign.data.datasets.caption_files import Pair, read_pairs
from cbalign.data.datasets.image_finder import ImageFinder
from cbalign.errors import UserError


class Rows:
    """The usable rows grouped by image, and a record of the skipped ones.

    Attributes:
      captions: {image file: its distinct captions}.
      paths: the image files of all rows, the skipped ones included.
      notes: remarks on how the file was read.
    """

    def __init__(self, file: str | os.PathLike, finder: ImageFinder, max_bad: float):
        """Reads a caption file and looks for its images.

        Args:
          file: see `caption_files.read_pairs`.
          finder: of the folder with the images.
          max_bad: largest share of the rows that may be unusable.

        Raises:
          UserError: the file is malformed, too many rows are unusable, or all are.
        """
        self.captions: dict[pathlib.Path, list[str]] = {}
        self.paths: set[pathlib.Path] = set()
        self.notes: list[str] = []
        self._file, self._folder, self._max_bad = file, finder.folder, max_bad
        self._spare: dict[str, list[str]] = collections.defaultdict(list)
        self._rows_of = collections.Counter()
        self._written: dict[pathlib.Path, str] = {}
        self._skipped = collections.defaultdict(lambda: {"rows": 0, "files": []})
        pairs = list(read_pairs(file, self.notes))
        finder.learn({pair.image for pair in pairs})
        found = {name: finder.locate(name) for name in dict.fromkeys(pair.image for pair in pairs)}
        self._total = sum(not pair.spare for pair in pairs)
        for pair in pairs:
            self._add(pair, *found[pair.image])
        self.notes += [
            f"{len(images):,} values in lists of captions are left out: {reason}, such as of {images[0]}"
            for reason, images in sorted(self._spare.items())
        ]
        self._check_share()

    def _add(self, pair: Pair, path: pathlib.Path | None, reason: str) -> None:
        fault, _, value = pair.fault.partition(" (")
        if path is not None:
            self.paths.add(path)
        if pair.spare:
            self._spare[fault].append(pair.image + (f" ({value}" if value else ""))
            return
        if path is None:
            self._skip(reason if pair.image else fault, pair.image or pair.caption[:40], 1)
            return
        caption = " ".join(pair.caption.split())
        if fault or not caption:
            self._skip(fault or "empty caption", pair.image + (f" ({value}" if value else ""), 1)
            return
        known = self.captions.setdefault(path, [])
        self._rows_of[path] += 1
        self._written.setdefault(path, pair.image)
        if caption.casefold() not in map(str.casefold, known):
            known.append(caption)

    def drop(self, path: pathlib.Path, reason: str) -> None:
        """Skips an image with all its rows; raises UserError if too many rows are skipped."""
        del self.captions[path]
        self._skip(reason, self._written[path], self._rows_of[path])
        self._check_share()

    def name(self, path: pathlib.Path) -> str:
        """The image's unique name: its path relative to the image folder, or the full path if it is elsewhere."""
        name = path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else path.as_posix()
        # File names need not be valid text, features must be.
        return name.encode(errors="backslashreplace").decode()

    def report(self) -> dict:
        """Returns the report on rows and images; complete once all bad images have been dropped."""
        return {
            "rows": self._total,
            "skipped_rows": self._bad(),
            "skipped": dict(sorted(self._skipped.items())),
            "images": len(self.captions),
        }

    def _skip(self, reason: str, written: str, rows: int) -> None:
        entry = self._skipped[reason]
        entry["rows"] += rows
        # Comparing with the last one suffices in the usual case that the rows of an image are adjacent.
        if entry["files"][-1:] != [written]:
            entry["files"].append(written)

    def _bad(self) -> int:
        return sum(entry["rows"] for entry in self._skipped.values())

    def _check_share(self) -> None:
        bad = self._bad()
        if bad > self._max_bad * self._total:
            reasons = ", ".join(f"{entry['rows']} {reason}" for reason, entry in sorted(self._skipped.items()))
            example = next(iter(self._skipped.values()))["files"][0]
            raise UserError(
                f"{bad} of {self._total} rows of {self._file} are unusable ({reasons}; for example {example!r}), more "
                f"than --max-bad={self._max_bad:g} allows: repair them, check --images, or raise --max-bad"
            )
        if not self.captions:
            raise UserError(f"{self._file} has no row with a caption and a readable image")
