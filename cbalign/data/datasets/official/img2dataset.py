"""What img2dataset leaves on the disk: folders or webdataset tars of `KEY.jpg`, `KEY.txt` and `KEY.json`."""

import json
import os
import pathlib
import re
import tarfile
from collections.abc import Iterator

from cbalign.data.datasets.official.json_files import fields_of, read_json
from cbalign.data.datasets.official.manual import Contents, Files, Listing, ImageFile
from cbalign.data.progress import Progress

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_TEXTS = (".txt", ".json")
_VAL = re.compile(r"(?<![a-z])val(id(ation)?)?(?![a-z])")


def read_pairs(files: Files, lists: dict[str, tuple[str, ...]]) -> Contents:
    """Reads ALBEF's lists if one is there, else all that img2dataset wrote below the manual folder.

    Args:
      files: the manual folder.
      lists: split to the names of ALBEF's lists. Without lists, what lies in a folder or tar whose name has `val`,
        `valid` or `validation` in it is `val` if there is such a split, and all else `train`.

    Returns:
      Rows of `schema.captions`; images are numbered in the order in which they are read.
    """
    found = {split: path for split, names in lists.items() if (path := files.find(*names))}
    contents = _read_lists(files, found) if found else _read_output(files, tuple(lists))
    contents.notes += [
        f"no {' or '.join(lists[split])} and no folder or tar of that name: the split {split} is not built"
        for split in lists if contents.splits and split not in contents.splits
    ]
    return contents


def _read_lists(files: Files, found: dict[str, pathlib.Path]) -> Contents:
    contents, number = Contents(), 0
    for split, path in found.items():
        listing = contents.splits[split] = Listing()
        with fields_of(path):
            for number, entry in enumerate(read_json(path, list), number):
                caption = entry["caption"]
                captions = [caption] if isinstance(caption, str) else caption
                listing.add_captions(_name(entry["image"]), files.image(entry["image"]), captions, number)
        number += 1
    return contents


def _name(path: str) -> str:
    """The last folder and the file: elsewhere the same key may come again."""
    return "/".join(path.split("/")[-2:])


def _read_output(files: Files, splits: tuple[str, ...]) -> Contents:
    """Reads folders and tars in the order of their names."""
    contents, number = Contents(), 0
    sources = sorted(_sources(files.folder))
    with Progress("listing", len(sources), unit="folder or tar") as progress:
        for source in sources:
            relative = source.relative_to(files.folder).as_posix()
            split = "val" if "val" in splits and _VAL.search(relative.lower()) else "train"
            samples = _read_tar(source, contents.notes) if source.suffix == ".tar" else _read_folder(source)
            for key, image, caption in samples:
                listing = contents.splits.setdefault(split, Listing())
                listing.add_captions(f"{relative}/{key}", image, [caption], number)
                number += 1
            progress.update()
    contents.splits = {split: contents.splits[split] for split in splits if split in contents.splits}
    return contents


def _sources(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders that hold images with texts beside them, and tars."""
    for path, _, names in os.walk(folder):
        endings = {os.path.splitext(name)[1].lower() for name in names}
        if endings.intersection(_IMAGES) and endings.intersection(_TEXTS):
            yield pathlib.Path(path)
        yield from (pathlib.Path(path, name) for name in names if name.endswith(".tar"))


def _read_folder(folder: pathlib.Path) -> Iterator[tuple[str, ImageFile, str]]:
    """Yields (key, image, caption) of a folder, in the order of the keys."""
    with os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    for name in sorted(sizes):
        key, ending = os.path.splitext(name)
        if ending.lower() not in _IMAGES:
            continue
        caption = ""
        for other in (f"{key}.txt", f"{key}.json"):
            if other in sizes:
                caption = _caption(other, (folder / other).read_bytes())
                break
        yield key, ImageFile(str(folder / name), sizes[name]), caption


def _read_tar(path: pathlib.Path, notes: list[str]) -> Iterator[tuple[str, ImageFile, str]]:
    """Yields (key, image, caption) of a tar, in its order; the images stay where they are.

    The members of a key stand together, as webdataset has them. A tar that is cut off, as img2dataset leaves it when
    it is stopped, is used up to there and noted.
    """
    key, image, texts = None, None, {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                stem, _, ending = member.name.rpartition(".")
                if stem != key:
                    if image:
                        yield key, image, _first(texts)
                    key, image, texts = stem, None, {}
                ending = f".{ending.lower()}"
                if ending in _IMAGES:
                    image = ImageFile(str(path), member.size, member.offset_data)
                elif ending in _TEXTS:
                    texts[ending] = _caption(member.name, archive.extractfile(member).read())
            if image:
                yield key, image, _first(texts)
    except tarfile.ReadError as error:
        notes.append(f"{path} is no whole tar ({error}): used as far as it goes")


def _first(texts: dict[str, str]) -> str:
    return next((texts[ending] for ending in _TEXTS if ending in texts), "")


def _caption(name: str, data: bytes) -> str:
    """The text of a `.txt`, or the caption in a `.json`; "" if there is none."""
    text = data.decode("utf-8", errors="replace")
    if name.endswith(".txt"):
        return text
    try:
        return str(json.loads(text).get("caption") or "")
    except (ValueError, AttributeError):
        return ""
