"""Finds faults in images and captions before a data set is built from them."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping

from cbalign.data.datasets import catalogue, schema
from cbalign.data.datasets.caption_values import EMPTY
from cbalign.data.datasets.folder_rows import Rows
from cbalign.data.datasets.image_finder import ImageFinder
from cbalign.data.datasets.official.official_builder import NO_TEXT, Contents, SplitRows, row_texts
from cbalign.data.datasets.official.official_files import ImageFile
from cbalign.data.image_files import MAX_PIXELS, BadImage, pillow_limit
from cbalign.data.progress import Progress
from cbalign.data.stored_images import decoded_size
from cbalign.data.text import clean_caption
from cbalign.errors import UserError
from cbalign.storage import write_atomically

# Images in flight: enough to keep all cores busy, few enough to use little memory.
_CHUNK = 1024
TOO_SMALL, TOO_LONG, DUPLICATED, IN_OTHER_SPLIT = "too small", "too long", "duplicated", "also in another split"


@dataclasses.dataclass
class SplitReport:
    """The condition of one split.

    Attributes:
      listed: records in the official files.
      records: those whose files exist; some of their images may still be broken.
      images: distinct images of these records.
      found: images that can be decoded.
      texts: captions, questions or sentences of the records.
      published: published number of records, None where there is none.
      problems: {kind: names of the affected records, images or captions}.
    """

    listed: int
    records: int
    images: int
    found: int
    texts: int
    published: int | None
    problems: dict[str, list[str]]


def check(
    name: str | None,
    manual_dir: str | None,
    images: str | None,
    captions: str | None,
    out: str | None = None,
    *,
    workers: int,
    min_side: int,
    max_words: int,
) -> list[str]:
    """Checks a data set (`check_data_set`) or a folder of images (`check_folder`).

    Args:
      name: see `check_data_set`.
      manual_dir: see `check_data_set`.
      images: see `check_folder`.
      captions: see `check_folder`.
      out: JSON file for the complete reports, with all names; None for none.
      workers: see `check_data_set`.
      min_side: see `check_data_set`.
      max_words: see `check_data_set`.

    Returns:
      The reports as lines of text.

    Raises:
      UserError: neither or both are given, an argument is out of range, or see `check_data_set` and `check_folder`.
    """
    if (name is None) == (images is None):
        raise UserError("give either NAME with --manual-dir, or --images with --captions")
    if min(workers, min_side, max_words) < 1:
        raise UserError("--workers, --min-side and --max-words must be 1 or more")
    limits = {"workers": workers, "min_side": min_side, "max_words": max_words}
    if name is not None:
        reports = check_data_set(name, manual_dir, **limits)
    elif captions is None:
        raise UserError("--images needs --captions, the file with their captions")
    else:
        reports = check_folder(images, captions, **limits)
    if out is not None:
        content = {split: dataclasses.asdict(report) for split, report in reports.items()}
        try:
            write_atomically(out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {out} ({error.strerror}): name another file with --out") from None
    return [line for split, report in reports.items() for line in _lines(split, report)]


def check_data_set(
    name: str, manual_dir: str | None, *, workers: int, min_side: int, max_words: int
) -> dict[str, SplitReport]:
    """Reads the official files of a data set and decodes all its images.

    Args:
      name: one of `catalogue.official_names()`.
      manual_dir: folder with its official files.
      workers: number of threads.
      min_side: an image with a side of fewer pixels is too small.
      max_words: a caption with more words after cleaning is too long and will be truncated.

    Returns:
      {split: its report}. The problems are those of `image_files` and `SplitRows.skipped`, and "too small", "too long",
      "duplicated" (identical to an earlier image of the split) and "also in another split".

    Raises:
      UserError: there is no such data set, or its files are missing or malformed.
    """
    official = catalogue.official_names()
    if name not in official:
        raise UserError(f"{name} cannot be checked: name one of {', '.join(official)}, or give --images and --captions")
    builder = catalogue.find_builder(name)
    if manual_dir is None:
        print(builder.instructions(), file=sys.stderr)
        raise UserError(f"--manual-dir is needed: the folder with the files of {name} that are listed above")
    contents = builder.contents(manual_dir)
    for note in contents.notes:
        print(note)
    return _check(contents, type(builder).SCHEMA, type(builder).EXPECTED, workers, min_side, max_words)


def check_folder(images: str, captions: str, *, workers: int, min_side: int, max_words: int) -> dict[str, SplitReport]:
    """Checks a folder of images and a file of captions, see `folder.import_folder`, as one split named "all".

    Args:
      images: folder with the images.
      captions: file with their captions.
      workers: see `check_data_set`.
      min_side: see `check_data_set`.
      max_words: see `check_data_set`.

    Raises:
      UserError: the folder or the file is missing or malformed.
    """
    finder, rows = ImageFinder(images), SplitRows()
    read = Rows(captions, finder, max_bad=1)
    for number, (path, texts) in enumerate(read.captions.items()):
        rows.add_captions(read.name(path), ImageFile(os.fspath(path), path.stat().st_size), texts, number)
    for reason, entry in read.report()["skipped"].items():
        rows.skipped[NO_TEXT if reason == EMPTY else reason] += entry["files"]
    for note in [*read.notes, *finder.notes(), *finder.leftovers(read.paths)]:
        print(f"note: {note}")
    return _check(Contents({"all": rows}), schema.captions, {}, workers, min_side, max_words)


def _check(
    contents: Contents,
    features: Callable[[], dict],
    expected: Mapping[str, int],
    workers: int,
    min_side: int,
    max_words: int,
) -> dict[str, SplitReport]:
    images = {split: _images(listing) for split, listing in contents.splits.items()}
    first_split: dict[bytes, str] = {}
    reports = {}
    with Progress("checking", sum(map(len, images.values())), unit="image") as progress, pillow_limit(MAX_PIXELS):
        for split, listing in contents.splits.items():
            problems = collections.defaultdict(list, {reason: [*names] for reason, names in listing.skipped.items()})
            found = _check_images(images[split], split, first_split, problems, workers, min_side, progress)
            texts = [text for row in listing.rows for text in row_texts(features, row)]
            problems[TOO_LONG] += [text for text in texts if _is_long(text, max_words)]
            reports[split] = SplitReport(
                listing.listed,
                len(listing.rows),
                len(images[split]),
                found,
                len(texts),
                expected.get(split),
                {reason: names for reason, names in sorted(problems.items()) if names},
            )
    return reports


def _images(listing: SplitRows) -> list[ImageFile]:
    return list(dict.fromkeys(image for row in listing.rows for image in row.images))


def _is_long(text: str, max_words: int) -> bool:
    return len(clean_caption(text, max_words=max_words + 1).split()) > max_words


def _check_images(
    images: list[ImageFile],
    split: str,
    first_split: dict[bytes, str],
    problems: dict[str, list[str]],
    workers: int,
    min_side: int,
    progress: Progress,
) -> int:
    """Decodes the images of a split and returns how many can be decoded.

    Adds to `problems`, and to `first_split` {digest of an image: the split in which it occurred first}.
    """
    found, digests = 0, set()
    for image, digest, outcome in _decoded(images, workers):
        progress.update()
        name = image.path if not image.offset else f"{image.path}, byte {image.offset}"
        if isinstance(outcome, str):
            problems[outcome].append(name)
            continue
        found += 1
        if min(outcome) < min_side:
            problems[TOO_SMALL].append(name)
        first = first_split.setdefault(digest, split)
        if first != split:
            problems[IN_OTHER_SPLIT].append(f"{name} ({first})")
        elif digest in digests:
            problems[DUPLICATED].append(name)
        digests.add(digest)
    return found


def _decoded(images: list[ImageFile], workers: int) -> Iterator[tuple[ImageFile, bytes, tuple[int, int] | str]]:
    """Yields (image, digest of its bytes, its size or the reason why it is bad)."""

    def decode(image: ImageFile) -> tuple:
        try:
            data = image.read()
            return image, hashlib.blake2b(data, digest_size=16).digest(), decoded_size(data)
        except BadImage as error:
            return image, b"", str(error)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(images), _CHUNK):
            yield from pool.map(decode, images[start : start + _CHUNK])


def _lines(split: str, report: SplitReport) -> list[str]:
    published = f", {report.published:,} published" if report.published is not None else ""
    first = (
        f"{split}: {report.records:,} of {report.listed:,} records{published}; {report.found:,} of "
        f"{report.images:,} images readable; {report.texts:,} texts"
    )
    return [first] + [
        f"  {kind:<22}{len(names):>10,}   such as {names[0][:90]}" for kind, names in report.problems.items()
    ]
