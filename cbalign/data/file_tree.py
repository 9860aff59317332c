"""Walking a folder of files: linked folders are followed, each folder once, and what is skipped is counted."""

from __future__ import annotations

import collections
import functools
import operator
import os
import pathlib
import stat
from collections.abc import Iterator

from PIL import Image

# Pillow only writes these, or only recognises them.
_NOT_READ = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}
NEEDS_DECODER = frozenset(
    (".heic", ".heif", ".hif", ".avif", ".avifs", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw")
)
"""Suffixes of images for which Pillow needs a plug-in or a build of its own, so that they deserve a word."""

LOST_LINK = "links to nothing"
SEEN = "linked folders that are searched already"
CLOSED = "folders that cannot be opened"
GONE = "files that cannot be opened"
_KINDS = (
    (stat.S_ISFIFO, "named pipes"),
    (stat.S_ISSOCK, "sockets"),
    (stat.S_ISBLK, "devices"),
    (stat.S_ISCHR, "devices"),
)


def walk(
    folder: str | os.PathLike, left_out: collections.Counter | None = None
) -> Iterator[tuple[pathlib.Path, list[tuple[str, os.stat_result]]]]:
    """Yields (folder, [(name of a file in it, its state)]) of a folder and its sub-folders; files sorted by name.

    Links to files and folders are followed. A folder that several paths lead to is listed once, by a path without
    links where there is one, so that a loop of links ends. Hidden files and folders are passed over.

    Args:
      folder: to walk through.
      left_out: receives {kind: how many} of what is neither a file nor a folder, or cannot be opened.
    """
    left_out = collections.Counter() if left_out is None else left_out
    seen: set[tuple[int, int]] = set()
    own, linked = collections.deque([pathlib.Path(folder)]), collections.deque()
    while own or linked:
        current = own.popleft() if own else linked.popleft()
        try:
            state = current.stat()
            if (state.st_dev, state.st_ino) in seen:
                left_out[SEEN] += 1
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(current) as listing:
                entries = sorted(listing, key=operator.attrgetter("name"))
        except OSError:
            left_out[CLOSED] += 1
            continue
        files = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                state = entry.stat()
            except OSError:
                left_out[LOST_LINK if entry.is_symlink() else GONE] += 1
                continue
            if stat.S_ISREG(state.st_mode):
                files.append((entry.name, state))
            elif stat.S_ISDIR(state.st_mode):
                (linked if entry.is_symlink() else own).append(pathlib.Path(entry.path))
            else:
                left_out[next((name for test, name in _KINDS if test(state.st_mode)), "special files")] += 1
        yield current, files


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes, with the dot, of the image formats that Pillow reads."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in Image.OPEN) - _NOT_READ


def other_files(name: str) -> str:
    """What files like one that is no image are called where they are counted: by their suffix."""
    suffix = pathlib.PurePath(name).suffix.lower()
    if pathlib.PurePath(name).stem.lower().endswith(".tar"):
        suffix = f".tar{suffix}"
    if not suffix:
        return "files without a suffix"
    return f"{suffix} files" + (" (no decoder installed)" if suffix in NEEDS_DECODER else "")


def describe(left_out: dict[str, int]) -> str:
    """What was left out, in words, the most frequent first: "10 .txt files, 1 socket"; "" for nothing."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {kind if count > 1 else _singular(kind)}" for kind, count in ordered)


def _singular(kind: str) -> str:
    """The singular of a kind: "socket" for "sockets", "link to nothing" for "links to nothing"."""
    for plural in ("files", "folders", "links", "pipes", "sockets", "devices"):
        if plural in kind.split():
            kind = kind.replace(plural, plural[:-1], 1)
            break
    return kind.replace(" that are ", " that is ")
