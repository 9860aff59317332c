"""Output of img2dataset: folders or webdataset tars of `KEY.jpg`, `KEY.txt` and `KEY.json`."""

from __future__ import annotations

import collections
import itertools
import os
import pathlib
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from cbalign.data.datasets.official.annotation_files import checking_fields, read_json
from cbalign.data.datasets.official.official_builder import Contents, SplitRows
from cbalign.data.datasets.official.official_files import ImageFile, OfficialFiles
from cbalign.data.file_tree import describe, other_files, readable_suffixes, walk
from cbalign.data.image_files import BadImage
from cbalign.data.progress import Progress
from cbalign.storage import parse_json

_TEXTS = (".txt", ".json")
# Longer texts are cut: a tar may claim any length for a member without content.
_MAX_TEXT = 1 << 20
_VAL = re.compile(r"(?<![a-z])val(id(ation)?)?(?![a-z])")


def read_pairs(files: OfficialFiles, lists: dict[str, tuple[str, ...]]) -> Contents:
    """Reads ALBEF's lists where at least one exists, else everything that img2dataset wrote to the folder.

    Args:
      files: the folder.
      lists: {split: names of ALBEF's list}. Without lists, a folder or tar whose path contains the word `val`, `valid`
        or `validation` belongs to the split `val`, if there is one, and all others to `train`.

    Returns:
      Rows of `schema.captions`; images are numbered in the order in which they are read.
    """
    found = {split: path for split, names in lists.items() if (path := files.find(*names))}
    contents = _read_lists(files, found) if found else _read_output(files, tuple(lists))
    contents.notes += [
        f"no {' or '.join(lists[split])} and no folder or tar with that name: the split {split} is not built"
        for split in lists
        if contents.splits and split not in contents.splits
    ]
    return contents


def _read_lists(files: OfficialFiles, found: dict[str, pathlib.Path]) -> Contents:
    contents, numbers = Contents(), itertools.count()
    for split, path in found.items():
        rows = contents.splits[split] = SplitRows()
        with checking_fields(path):
            for entry in read_json(path, list):
                image = entry["image"]
                rows.add_captions(_name(image), files.image(image), entry["caption"], next(numbers))
    return contents


def _name(path: str) -> str:
    """The last folder and the file name: file names alone repeat between folders."""
    return "/".join(path.split("/")[-2:])


def _read_output(files: OfficialFiles, splits: tuple[str, ...]) -> Contents:
    """Reads folders and tars, sorted by path."""
    contents, numbers = Contents(), itertools.count()
    left_out: collections.Counter = collections.Counter()
    sources = sorted(_sources(files.folder, left_out))
    with Progress("listing", len(sources), unit="source") as progress:
        for source in sources:
            relative = source.relative_to(files.folder).as_posix()
            split = "val" if "val" in splits and _VAL.search(relative.lower()) else "train"
            if source.suffix.lower() == ".tar":
                samples = _read_tar(source, contents.notes, left_out)
            else:
                samples = _read_folder(source)
            for key, image, caption in samples:
                rows = contents.splits.setdefault(split, SplitRows())
                rows.add_captions(f"{relative}/{key}", image, caption, next(numbers))
            progress.update()
    if left_out:
        contents.notes.append(f"not read in {files.folder}: {describe(left_out)}")
    contents.splits = {split: contents.splits[split] for split in splits if split in contents.splits}
    return contents


def _sources(folder: pathlib.Path, left_out: collections.Counter) -> Iterator[pathlib.Path]:
    """Yields tars, and folders that contain images with texts; counts the other files by kind."""
    images = readable_suffixes()
    for path, files in walk(folder, left_out):
        names = [name for name, _ in files]
        endings = {os.path.splitext(name)[1].lower() for name in names}
        used = {*_TEXTS, ".tar"}
        if endings & images and endings.intersection(_TEXTS):
            used |= images
            yield path
        yield from (path / name for name in names if name.lower().endswith(".tar"))
        left_out.update(other_files(name) for name in names if os.path.splitext(name)[1].lower() not in used)


def _read_folder(folder: pathlib.Path) -> Iterator[tuple[str, ImageFile, Any]]:
    """Yields (key, image, caption) for each image of a folder, sorted by key."""
    with os.scandir(folder) as entries:
        files = {entry.name: _size(entry) for entry in entries if entry.is_file()}
    sizes = {name: size for name, size in files.items() if size is not None}
    for name in sorted(sizes):
        key, ending = os.path.splitext(name)
        if ending.lower() not in readable_suffixes():
            continue
        caption = ""
        for other in (f"{key}.txt", f"{key}.json"):
            if other in sizes:
                caption = _caption(other, ImageFile(str(folder / other), min(sizes[other], _MAX_TEXT)))
                break
        yield key, ImageFile(str(folder / name), sizes[name]), caption


def _read_tar(
    path: pathlib.Path, notes: list[str], left_out: collections.Counter
) -> Iterator[tuple[str, ImageFile, Any]]:
    """Yields (key, image, caption) for each sample of a tar, in order, without extracting the images.

    The members of a sample are consecutive, as in webdataset. A truncated tar, as an interrupted img2dataset leaves it,
    is read up to its end, with a note.
    """
    key, image, texts = None, None, {}
    length, last = path.stat().st_size, -1
    try:
        with tarfile.open(path, "r:", tarinfo=_Member) as archive:
            for member in archive:
                if member.offset <= last:
                    raise tarfile.ReadError("it leads back to its start")
                last = member.offset
                # Python keeps all members, for links that nobody follows here.
                archive.members = []
                if not member.isfile():
                    if not member.isdir():
                        left_out["links and devices in tars"] += 1
                    continue
                stem, _, ending = member.name.rpartition(".")
                if stem != key:
                    if image:
                        yield key, image, _preferred(texts)
                    key, image, texts = stem, None, {}
                ending = f".{ending.lower()}"
                if ending in readable_suffixes():
                    held = max(0, min(member.size, length - member.offset_data))
                    image = ImageFile(str(path), held, member.offset_data)
                elif ending in _TEXTS:
                    texts[ending] = _text(member.name, archive.extractfile(member).read(_MAX_TEXT))
                else:
                    left_out[f"{other_files(member.name)} in tars"] += 1
            _check_end(path, archive.offset)
    # What is damaged within an extended header is a ValueError.
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        notes.append(f"{path} is truncated or damaged ({error}): only its readable part is used")
    if image:
        yield key, image, _preferred(texts)


def _preferred(texts: dict[str, Any]) -> Any:
    return next((texts[ending] for ending in _TEXTS if ending in texts), "")


class _Member(tarfile.TarInfo):
    """A member whose size is no negative number, at which Python up to 3.11.13 reads the same member for ever."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("a size is negative")
        return super()._block(count)


def _check_end(path: pathlib.Path, offset: int) -> None:
    """Raises ReadError where reading ended at something that is no end of a tar: zeros, or that of the file."""
    with path.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"damaged at byte {offset:,}")


def _size(entry: os.DirEntry) -> int | None:
    try:
        return entry.stat().st_size
    except OSError:  # it was there a moment ago
        return None


def _caption(name: str, file: ImageFile) -> Any:
    try:
        return _text(name, file.read())
    except BadImage:
        return ""


def _text(name: str, data: bytes) -> Any:
    """The content of a `.txt` file, or the caption in a `.json` file; "" where there is none."""
    text = data.decode("utf-8", errors="replace")
    if name.endswith(".txt"):
        return text
    try:
        return parse_json(text).get("caption", "")
    except (ValueError, AttributeError):
        return ""
