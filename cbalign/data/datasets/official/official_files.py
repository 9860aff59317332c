"""A folder of official files: annotation files found by name, images by the paths that annotations give them."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

from cbalign.data.datasets.image_finder import IN_SUBFOLDER, ImageFinder
from cbalign.data.image_files import BadImage
from cbalign.errors import UserError

MISSING, EMPTY_FILE = "missing", "empty file"


class ImageFile(NamedTuple):
    """The location of an image: `size` bytes starting at `offset` of the file `path`, which may be a tar."""

    path: str
    size: int
    offset: int = 0

    def read(self) -> bytes:
        """Reads the image.

        Raises:
          BadImage: the file no longer exists or has become shorter.
        """
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.offset)
                data = stream.read(self.size)
        except OSError as error:
            raise BadImage(MISSING) from error
        if len(data) < self.size or not data:
            raise BadImage(EMPTY_FILE if not self.size else "broken")
        return data


class OfficialFiles:
    """The folder that holds the official files of a data set."""

    def __init__(self, folder: str | os.PathLike, workers: int = 1):
        """Opens the folder; `workers` processes may be used to read it.

        Raises:
          UserError: it does not exist, or is not local.
        """
        if "://" in os.fspath(folder):
            raise UserError(f"--manual-dir={folder} is not a local folder: copy the files to this machine first")
        self.folder = pathlib.Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"--manual-dir={folder} does not exist")
        self.workers = workers
        self._finder = ImageFinder(self.folder)
        self._found: dict[str, ImageFile | None] = {}

    def find(self, *names: str) -> pathlib.Path | None:
        """The first of the named files that is in the folder or up to three levels below it, else None."""
        for name in names:
            for pattern in ("", "*/", "*/*/", "*/*/*/"):
                found = sorted(self.folder.glob(pattern + name))
                if found:
                    return found[0]
        return None

    def notes(self) -> list[str]:
        """Lines that tell which images were not found exactly as the annotations write them."""
        return self._finder.notes(of_course=(IN_SUBFOLDER,))

    def image(self, *paths: str) -> ImageFile | None:
        """The first of the images that `ImageFinder.find` finds, else None."""
        for path in paths:
            if path not in self._found:
                file = self._finder.find(path)
                self._found[path] = file and _with_size(file)
            if self._found[path]:
                return self._found[path]
        return None


def _with_size(file: pathlib.Path) -> ImageFile | None:
    try:
        return ImageFile(os.fspath(file), file.stat().st_size)
    except OSError:  # it was there a moment ago
        return None
