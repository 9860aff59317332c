"""Which files of a folder are images, and what else lies there."""

import collections
import dataclasses
import functools
import os
import pathlib
import stat

from PIL import Image

# Pillow only writes these, or only recognises them.
_NOT_READ = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}
# Images for which Pillow needs a plug-in or a build of its own, so that their absence deserves a word.
_NEEDS_DECODER = {".heic", ".heif", ".hif", ".avif", ".avifs", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw"}

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


@dataclasses.dataclass
class Scan:
    """The files of a folder and its sub-folders.

    Attributes:
      files: {path within the folder: (size in bytes, time of change in ns)} of the image files, sorted by path.
      left_out: {kind: how many} of what is no image file; hidden files and folders are not counted.
    """

    files: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    left_out: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def scan_folder(folder: str | os.PathLike) -> Scan:
    """Lists the image files of a folder and its sub-folders by their suffix; links to files and folders are followed.

    A folder that several paths lead to is listed once, by a path without links where there is one, so that a loop of
    links ends.
    """
    scan, seen = Scan(), set()
    own, linked = collections.deque([pathlib.Path(folder)]), collections.deque()
    while own or linked:
        current = own.popleft() if own else linked.popleft()
        try:
            state = current.stat()
            if (state.st_dev, state.st_ino) in seen:
                scan.left_out[SEEN] += 1
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(current) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            scan.left_out[CLOSED] += 1
            continue
        for entry in entries:
            if not entry.name.startswith("."):
                _add(scan, entry, folder, own, linked)
    scan.files = dict(sorted(scan.files.items()))
    return scan


def _add(scan: Scan, entry: os.DirEntry, folder, own, linked) -> None:
    """Adds one entry of a folder to the files, to the folders still to be listed, or to what is left out."""
    try:
        state = entry.stat()
    except OSError:
        scan.left_out[LOST_LINK if entry.is_symlink() else GONE] += 1
        return
    if stat.S_ISDIR(state.st_mode):
        (linked if entry.is_symlink() else own).append(pathlib.Path(entry.path))
        return
    if not stat.S_ISREG(state.st_mode):
        scan.left_out[next((name for test, name in _KINDS if test(state.st_mode)), "special files")] += 1
        return
    suffix = pathlib.Path(entry.name).suffix.lower()
    if suffix in readable_suffixes():
        scan.files[os.path.relpath(entry.path, folder)] = state.st_size, state.st_mtime_ns
    else:
        scan.left_out[_other_files(suffix)] += 1


def _other_files(suffix: str) -> str:
    if not suffix:
        return "files without a suffix"
    return f"{suffix} files" + (" (no decoder installed)" if suffix in _NEEDS_DECODER else "")


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes, with the dot, of the formats Pillow reads."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in Image.OPEN) - _NOT_READ


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
