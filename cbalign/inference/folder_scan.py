"""Which files of a folder are images, and what else lies there."""

import collections
import dataclasses
import os

from cbalign.data.file_tree import other_files, readable_suffixes, walk

_LATEST = 2**63 - 1


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
    """Lists the image files of a folder and its sub-folders by their suffix, see `file_tree.walk`."""
    scan, suffixes = Scan(), readable_suffixes()
    for current, files in walk(folder, scan.left_out):
        inner = os.path.relpath(current, folder)
        prefix = "" if inner == os.curdir else inner + os.sep
        for name, state in files:
            if os.path.splitext(name)[1].lower() in suffixes:
                # A clock far in the future gives times of more than 63 bits.
                scan.files[prefix + name] = state.st_size, min(state.st_mtime_ns, _LATEST)
            else:
                scan.left_out[other_files(name)] += 1
    scan.files = dict(sorted(scan.files.items()))
    return scan
