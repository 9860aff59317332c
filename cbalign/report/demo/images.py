"""The images that the page shows: those of one folder, and no file outside it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np

from cbalign.data.datasets.caption_files import read_pairs
from cbalign.data.image_files import MAX_PIXELS, BadImage, encode_file, load_rgb
from cbalign.errors import UserError
from cbalign.inference import Encoder, index_folder
from cbalign.inference.folder_scan import scan_folder
from cbalign.storage import write_atomically

CAPTION_FILES = ("captions.csv", "captions.tsv", "captions.jsonl", "captions.json")
"""The first of these that lies in the folder itself gives the captions to show."""
THUMBNAIL_SIDE = 320
"""Long side of the images in the grid, in pixels."""


@dataclasses.dataclass(frozen=True)
class ShownImages:
    """The images of a folder, in the order of their names.

    Attributes:
      root: the folder, without links.
      names: n paths within the folder.
      features: float32 [n, d], rows of unit length; None where the model has no shared embedding space.
      captions: {name: its captions}, as far as the folder has a file of them.
      notes: what is not shown, and why; a sentence each.
    """

    root: pathlib.Path
    names: list[str]
    features: np.ndarray | None
    captions: dict[str, list[str]]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> pathlib.Path:
        """The file of an image, without links.

        Raises:
          UserError: it has gone, or has become a link that leads outside the folder.
        """
        try:
            file = (self.root / self.names[row]).resolve(strict=True)
        except (OSError, RuntimeError):
            raise UserError(f"{self.shown_name(row)} is no longer there; start the page again") from None
        if not file.is_relative_to(self.root):
            raise UserError(f"{self.shown_name(row)} leads outside the folder; it is not shown")
        return file

    def pixels(self, row: int) -> np.ndarray:
        """An image, uint8 [h, w, 3].

        Raises:
          UserError: it cannot be read, or see `file`.
        """
        try:
            return load_rgb(self.file(row), max_pixels=MAX_PIXELS)
        except BadImage as error:
            raise UserError(f"{self.shown_name(row)} cannot be shown ({error})") from error

    def thumbnail(self, row: int, folder: pathlib.Path) -> pathlib.Path:
        """A reduced copy of an image, made once: the file of it in `folder`.

        Raises:
          UserError: see `pixels`.
        """
        file = self.file(row)
        copy = folder / f"{row}.jpg"
        if not copy.exists():
            try:
                write_atomically(copy, encode_file(file, THUMBNAIL_SIDE, MAX_PIXELS))
            except BadImage as error:
                raise UserError(f"{self.shown_name(row)} cannot be shown ({error})") from error
        return copy

    def shown_name(self, row: int) -> str:
        """The name of an image as valid text; file names need not be."""
        return self.names[row].encode(errors="replace").decode()


def open_images(
    folder: os.PathLike | str,
    *,
    encoder: Encoder | None,
    cache: os.PathLike | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShownImages:
    """The images of a folder and its sub-folders, with their features where there is an encoder.

    Links are followed as long as they stay within the folder.

    Args:
      folder, cache, progress: as for `index_folder`.
      encoder: of the model; None where it has no shared embedding space.

    Raises:
      UserError: no such folder, or no image in it that can be shown.
    """
    given = pathlib.Path(folder)
    if not given.is_dir():
        raise UserError(f"{given} is not a folder; name a folder of images")
    root, notes, features = given.resolve(), [], None
    if encoder is not None:
        index = index_folder(given, encoder=encoder, cache=cache, progress=progress)
        names, features = [os.path.relpath(path, given) for path in index.paths], index.features
        # The file of captions is read, if not searched.
        others = {kind: count for kind, count in index.left_out.items() if not _is_captions(root, kind, count)}
        notes += dataclasses.replace(index, left_out=others).notes
        if index.skipped:
            first = index.skipped[0]
            notes.append(
                f"{len(index.skipped):,} images cannot be read, such as "
                f"{os.fsencode(first.path).decode(errors='replace')} ({first.reason})"
            )
    else:
        names = list(scan_folder(given).files)
    inside = [row for row, name in enumerate(names) if _is_inside(root, name)]
    if len(inside) < len(names):
        notes.append(f"{len(names) - len(inside):,} images are links that lead outside the folder; they are not shown")
    if not inside:
        raise UserError(f"no images in {given} that can be shown; name a folder of JPEG, PNG or other image files")
    captions, caption_notes = _captions(root)
    return ShownImages(
        root,
        [names[row] for row in inside],
        None if features is None else features[inside],
        captions,
        notes + caption_notes,
    )


def _is_inside(root: pathlib.Path, name: str) -> bool:
    try:
        return (root / name).resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return False


def _is_captions(root: pathlib.Path, kind: str, count: int) -> bool:
    """Whether files that are no images are the folder's one file of captions."""
    return count == 1 and any(
        kind == f"{pathlib.Path(name).suffix} files" and (root / name).is_file() for name in CAPTION_FILES
    )


def _captions(root: pathlib.Path) -> tuple[dict[str, list[str]], list[str]]:
    """({name: captions} of the folder's own file of captions, notes)."""
    for name in CAPTION_FILES:
        if not (root / name).is_file() or not _is_inside(root, name):
            continue
        found: dict[str, list[str]] = {}
        try:
            for pair in read_pairs(root / name):
                if pair.image and pair.caption:
                    found.setdefault(os.path.normpath(pair.image), []).append(pair.caption)
        except UserError as error:
            return {}, [f"no captions are shown: {error}"]
        return found, []
    return {}, []
