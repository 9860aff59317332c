"""What is wrong with images and captions, before anything is built of them."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator

from cbalign.data.datasets import schema
from cbalign.data.datasets.caption_files import Finder, read_pairs
from cbalign.data.datasets.catalogue import MANUAL, find_builder
from cbalign.data.datasets.official.manual import Contents, Listing, ImageFile, texts_of
from cbalign.data.image_files import MAX_PIXELS, BadImage, image_size, pillow_limit
from cbalign.data.progress import Progress
from cbalign.data.text import clean_caption
from cbalign.errors import UserError

# Images in flight: enough to keep all cores busy, few enough to stay small in memory.
_CHUNK = 1024
TOO_SMALL, TOO_LONG, DUPLICATED, IN_OTHER_SPLIT = "too small", "too long", "duplicated", "also in another split"


@dataclasses.dataclass
class SplitReport:
    """What is known of one split.

    Attributes:
      listed: records in the official files.
      records: those that can be used as far as the files tell; an image among them may yet be broken.
      images: their images, each counted once.
      found: images that are whole.
      texts: captions, questions or sentences of the records.
      published: the published number of records, None where there is none.
      problems: kind to the names of the records, images or captions concerned.
    """

    listed: int
    records: int
    images: int
    found: int
    texts: int
    published: int | None
    problems: dict[str, list[str]]


def check(
    name: str | None, manual_dir: str | None, images: str | None, captions: str | None, out: str | None = None, *,
    workers: int, min_side: int, max_words: int,
) -> list[str]:
    """Checks a data set (`check_data_set`), or a folder of images (`check_folder`).

    Args:
      name, manual_dir: for `check_data_set`.
      images, captions: for `check_folder`.
      out: file for the reports with all names, as JSON; None for none.
      workers, min_side, max_words: as there.

    Returns:
      The reports as lines for a person.

    Raises:
      UserError: neither or both are asked for, an argument is out of range, or as the two functions.
    """
    if (name is None) == (images is None):
        raise UserError("give either NAME with --manual-dir, or --images with --captions")
    if min(workers, min_side, max_words) < 1:
        raise UserError("--workers, --min-side and --max-words are to be 1 or more")
    limits = {"workers": workers, "min_side": min_side, "max_words": max_words}
    if name is not None:
        reports = check_data_set(name, manual_dir, **limits)
    elif captions is None:
        raise UserError("--images needs --captions, the file of their captions")
    else:
        reports = check_folder(images, captions, **limits)
    if out is not None:
        content = {split: dataclasses.asdict(report) for split, report in reports.items()}
        try:
            pathlib.Path(out).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {out} ({error.strerror}): give another --out") from None
    return [line for split, report in reports.items() for line in _lines(split, report)]


def check_data_set(
    name: str, manual_dir: str | None, *, workers: int, min_side: int, max_words: int
) -> dict[str, SplitReport]:
    """Reads all files of a data set of `catalogue.MANUAL` and decodes every image.

    Args:
      name: of the data set.
      manual_dir: folder of its official files.
      workers: threads.
      min_side: images with a side of fewer pixels are too small.
      max_words: captions of more words, cleaned, are too long: they will be cut.

    Returns:
      Split to its report. The problems are those of `images` and `manual`, and `too small`, `too long`,
      `duplicated` (the same bytes as an earlier image of the split) and `also in another split`.

    Raises:
      UserError: there is no such data set, or its files are not there or malformed.
    """
    if name not in MANUAL:
        raise UserError(f"cbalign data check takes one of {', '.join(MANUAL)}, or --images and --captions; not {name}")
    builder = find_builder(name)
    if manual_dir is None:
        print(builder.instructions(), file=sys.stderr)
        raise UserError(f"--manual-dir is needed: the folder of the files of {name}, listed above")
    contents = builder.contents(manual_dir)
    for note in contents.notes:
        print(note)
    return _check(contents, type(builder).SCHEMA, type(builder).EXPECTED, workers, min_side, max_words)


def check_folder(images: str, captions: str, *, workers: int, min_side: int, max_words: int) -> dict[str, SplitReport]:
    """The same for a folder of images and a file of captions, as `cbalign data import` takes them; one split."""
    finder, listing = Finder(images), Listing()
    grouped: dict[str, list[str]] = collections.defaultdict(list)
    for written, caption in read_pairs(captions):
        grouped[written].append(caption)
    for number, (written, texts) in enumerate(grouped.items()):
        path = finder.find(written)
        image = ImageFile(os.fspath(path), path.stat().st_size) if path else None
        listing.add_captions(written, image, texts, number)
    return _check(Contents({"all": listing}), schema.captions, {}, workers, min_side, max_words)


def _check(contents: Contents, features, expected, workers: int, min_side: int, max_words: int) -> dict:
    where = {split: _images(listing) for split, listing in contents.splits.items()}
    first_split: dict[bytes, str] = {}
    reports = {}
    with Progress("checking", sum(map(len, where.values())), unit="image") as progress, pillow_limit(MAX_PIXELS):
        for split, listing in contents.splits.items():
            problems = collections.defaultdict(list, {reason: [*names] for reason, names in listing.left_out.items()})
            found = _check_images(where[split], split, first_split, problems, workers, min_side, progress)
            texts = [text for row in listing.rows for text in texts_of(features, row)]
            problems[TOO_LONG] += [text for text in texts if _is_long(text, max_words)]
            reports[split] = SplitReport(
                listing.listed, len(listing.rows), len(where[split]), found, len(texts), expected.get(split),
                {reason: names for reason, names in sorted(problems.items()) if names},
            )
    return reports


def _images(listing: Listing) -> list[ImageFile]:
    return list(dict.fromkeys(image for row in listing.rows for image in row.images))


def _is_long(text: str, max_words: int) -> bool:
    return len(clean_caption(text, max_words=max_words + 1).split()) > max_words


def _check_images(
    images: list[ImageFile], split: str, first_split: dict[bytes, str], problems: dict[str, list[str]], workers: int,
    min_side: int, progress: Progress,
) -> int:
    """Decodes the images of a split and returns how many are whole.

    Adds to `problems`, and to `first_split`, which tells by the digest of an image where it was seen first.
    """
    found, digests = 0, set()
    for image, digest, outcome in _examined(images, workers):
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


def _examined(images: list[ImageFile], workers: int) -> Iterator[tuple[ImageFile, bytes, tuple[int, int] | str]]:
    """Yields (image, digest of its bytes, size or the reason why it is bad)."""

    def examine(image: ImageFile) -> tuple:
        try:
            data = image.read()
            return image, hashlib.blake2b(data, digest_size=16).digest(), image_size(data)
        except BadImage as error:
            return image, b"", str(error)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(images), _CHUNK):
            yield from pool.map(examine, images[start : start + _CHUNK])


def _lines(split: str, report: SplitReport) -> list[str]:
    published = f", {report.published:,} published" if report.published is not None else ""
    first = (
        f"{split}: {report.records:,} of {report.listed:,} records{published}; {report.found:,} of "
        f"{report.images:,} images whole; {report.texts:,} texts"
    )
    return [first] + [
        f"  {kind:<22}{len(names):>10,}   such as {names[0][:90]}" for kind, names in report.problems.items()
    ]
