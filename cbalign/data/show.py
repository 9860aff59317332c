"""Inspection of a built data set: statistics, and a contact sheet of images with their texts."""

from __future__ import annotations

import collections
import io
import pathlib
import statistics
import textwrap
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFont

from cbalign.data.datasets.catalogue import prepare
from cbalign.data.image_files import BadImage, load_rgb
from cbalign.data.split_index import load_index
from cbalign.data.text import clean_caption
from cbalign.data.text_lengths import length_notes
from cbalign.errors import UserError

# A sample is read from so many positions of a split.
_POSITIONS = 16
# Layout of the sheet, in pixels; _TEXT_LINES and _COLUMNS are counts.
_WIDTH, _HEIGHT, _TEXT_LINES, _LINE_HEIGHT, _MARGIN, _COLUMNS, _GAP = 240, 180, 8, 15, 8, 4, 4
# Values listed in a distribution.
_TOP = 8


def show(
    name: str, data_dir: str | None, split: str | None, out: str | None, *, records: int, examples: int
) -> Iterator[str]:
    """Yields lines with statistics of a data set and writes a contact sheet for each split.

    Args:
      name: see `catalogue.prepare`; the data set is generated now or must have been built.
      data_dir: see `catalogue.prepare`.
      split: name of a split; None for all.
      out: the sheet, a `.png` file; None for `NAME-SPLIT.png` in the current folder.
      records: the statistics are computed from a sample of about this many records of each split.
      examples: records on the sheet.

    Raises:
      UserError: the data set or the split does not exist, an argument is out of range, or the sheet cannot be written.
    """
    if min(records, examples) < 1:
        raise UserError("--sample and --examples must be 1 or more")
    builder = prepare(name, data_dir)
    splits = [split] if split else list(builder.info.splits)
    if out and len(splits) > 1:
        raise UserError(f"--out names one sheet but there are {len(splits)} splits: name one with --split")
    yield f"{name} in {builder.data_path}"
    names = image_features(builder)
    of_captions = "captions" in builder.info.features
    for split in splits:
        taken = list(sample(builder, split, records))
        info = builder.info.splits[split]
        part = f", {len(taken):,} of them sampled" if len(taken) < info.num_examples else ""
        size = f"{info.num_bytes / 1e6:,.1f} MB in {info.num_shards} files"
        yield f"\n{split}: {info.num_examples:,} records{part}; {size}"
        if of_captions:
            pairs = len(load_index(builder, split).columns["captions"].strings)
            yield f"an epoch              {info.num_examples:,} images, or {pairs:,} pairs (data.epoch_over)"
        yield from statistics_lines(taken, names)
        file = pathlib.Path(out or f"{builder.name}-{split}.png")
        try:
            contact_sheet(taken[:: max(len(taken) // examples, 1)][:examples], names).save(file, "PNG")
        except OSError as error:
            raise UserError(f"cannot write {file} ({error.strerror or error}): name another file with --out") from None
        yield f"sheet                 {file}"


def sample(builder: tfds.core.DatasetBuilder, split: str, count: int) -> Iterator[dict]:
    """Yields about `count` records of a split, from positions spread evenly over it, with images as encoded bytes.

    Raises:
      UserError: the split does not exist.
    """
    if split not in builder.info.splits:
        raise UserError(f"{builder.name} has no split {split}: name one of {', '.join(builder.info.splits)}")
    total = builder.info.splits[split].num_examples
    each = -(-min(count, total) // _POSITIONS)
    starts = sorted({int(start) for start in np.linspace(0, total - each, _POSITIONS)}) if count < total else [0]
    each = each if count < total else total
    slices = "+".join(f"{split}[{start}:{start + each}]" for start in starts)
    skip = {name: tfds.decode.SkipDecoding() for name in image_features(builder)}
    yield from tfds.as_numpy(builder.as_dataset(split=slices, decoders=skip, shuffle_files=False))


def image_features(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Names of the image features."""
    return [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]


def statistics_lines(records: list[dict], images: list[str]) -> list[str]:
    """Lines with statistics of records: images, lengths of texts, and distributions of labels.

    Args:
      records: of one split, as `sample` yields them.
      images: names of the image features.
    """
    opened = [_opened(record[name]) for record in records for name in images]
    formats = collections.Counter(f"{image.format} {image.mode}" if image else "unreadable" for image in opened)
    opened = [image for image in opened if image]
    texts = [_texts(record) for record in records]
    out = [
        f"image width           {_spread([image.width for image in opened])} pixels",
        f"image height          {_spread([image.height for image in opened])} pixels",
        f"image size            {_spread([len(record[name]) / 1024 for record in records for name in images])} KiB",
        f"formats               {_shares(formats)}",
        f"texts per record      {_spread([len(group) for group in texts])}",
        f"words per text        {_spread([_words(text) for group in texts for text in group])} after cleaning",
    ]
    if "answers" in records[0]:
        given = [
            collections.Counter(record["answers"].tolist()).most_common(1)[0][0].decode()
            for record in records
            if len(record["answers"])
        ]
        out.append(f"answers per question  {_spread([len(record['answers']) for record in records])}")
        out.append(f"top answers           {_shares(collections.Counter(given))}")
    out += length_notes(text for group in texts for text in group)
    categories = [name for name in ("label", "answer_type", "question_type", "group") if name in records[0]]
    counts = {name: collections.Counter(_plain(record[name]) for record in records) for name in categories}
    return out + [f"{name:<22}{_shares(counts[name])}" for name in categories]


def _opened(data: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(data))
    except OSError:
        return None


def _plain(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(record: Mapping) -> list[str]:
    """The captions, the question or the sentence of a record."""
    if "captions" in record:
        return [caption.decode() for caption in record["captions"]]
    return [record["question" if "question" in record else "sentence"].decode()]


def _words(text: str) -> int:
    return len(clean_caption(text, max_words=10_000).split())


def _spread(values: list) -> str:
    if not values:
        return "none"
    high = sorted(values)[min(int(0.95 * len(values)), len(values) - 1)]
    return f"{min(values):.0f} to {max(values):.0f}, median {statistics.median(values):.0f}, 95 % up to {high:.0f}"


def _shares(counts: collections.Counter) -> str:
    total = sum(counts.values())
    shown = [f"{value or 'none'} {count / total:.1%}" for value, count in counts.most_common(_TOP)]
    return ", ".join(shown) + (f" and {len(counts) - _TOP:,} others" if len(counts) > _TOP else "") or "none"


def contact_sheet(records: list[dict], images: list[str]) -> Image.Image:
    """Draws a contact sheet: the images of each record with its texts, label and answers below.

    Args:
      records: at least one.
      images: names of the image features; two images of a record are placed side by side.
    """
    height = _HEIGHT + _TEXT_LINES * _LINE_HEIGHT + 2 * _MARGIN
    rows = -(-len(records) // _COLUMNS)
    sheet = Image.new("RGB", (min(len(records), _COLUMNS) * (_WIDTH + _MARGIN) + _MARGIN, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, record in enumerate(records):
        left, top = _MARGIN + number % _COLUMNS * (_WIDTH + _MARGIN), _MARGIN + number // _COLUMNS * height
        width = _WIDTH // len(images)
        for place, name in enumerate(images):
            image = _shrunk(record[name], (width - _GAP * (len(images) > 1), _HEIGHT))
            sheet.paste(image, (left + place * width + (width - image.width) // 2, top + _HEIGHT - image.height))
        for line, text in enumerate(_lines_below(record)):
            draw.text((left, top + _HEIGHT + 2 + line * _LINE_HEIGHT), text, fill="black", font=font)
    return sheet


def _shrunk(data: bytes, size: tuple[int, int]) -> Image.Image:
    try:
        image = Image.fromarray(load_rgb(data))
    except BadImage:
        # Red marks an image that cannot be decoded.
        return Image.new("RGB", size, "red")
    scale = min(size[0] / image.width, size[1] / image.height)
    shape = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(shape, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST)


def _lines_below(record: Mapping) -> list[str]:
    """The captions that fit, or the question or sentence with its answers or label."""
    texts = _texts(record)
    if "answers" in record:
        texts.append(
            "answers: " + (", ".join(dict.fromkeys(answer.decode() for answer in record["answers"])) or "secret")
        )
    if "label" in record:
        texts[0] = f"[{record['label']}] {texts[0]}"
    lines = [line for text in texts for line in textwrap.wrap(text, width=_WIDTH // 6)]
    return lines if len(lines) <= _TEXT_LINES else [*lines[: _TEXT_LINES - 1], "..."]
