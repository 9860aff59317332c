"""Karpathy's splits of COCO and Flickr30K, from his files or from ALBEF's lists."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable

from cbalign.data.datasets.official.annotation_files import checking_fields, read_json
from cbalign.data.datasets.official.official_builder import Contents, SplitRows
from cbalign.data.datasets.official.official_files import ImageFile, OfficialFiles

SPLITS = ("train", "val", "test")
# "restval": COCO's validation images outside `val` and `test`, which are part of the training split by convention.
_SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def read_karpathy(path: pathlib.Path, find: Callable[[dict], ImageFile | None]) -> Contents:
    """Reads `dataset_coco.json` or `dataset_flickr30k.json`.

    Args:
      path: the file.
      find: one of its entries -> the image.

    Returns:
      Rows of `schema.captions`; the id is COCO's, or Karpathy's running number where there is none.
    """
    splits = {split: SplitRows() for split in SPLITS}
    with checking_fields(path):
        for entry in read_json(path, dict)["images"]:
            splits[_SPLIT_OF[entry["split"]]].add_captions(
                entry["filename"], find(entry), entry["sentences"], entry.get("cocoid", entry["imgid"])
            )
    return Contents({split: rows for split, rows in splits.items() if rows.listed})


def read_albef(files: OfficialFiles, names: tuple[str, ...], find: Callable[[str], ImageFile | None]) -> Contents:
    """Reads ALBEF's lists, one file a split, with one entry a caption (training) or an image (evaluation).

    Args:
      files: the folder.
      names: file names with `{split}` in place of the split; the first that exists is read.
      find: path in a list -> the image.

    Returns:
      Rows of `schema.captions`; images are numbered in the order of the lists.
    """
    contents, numbers = Contents(), itertools.count()
    for split in SPLITS:
        candidates = [name.format(split=split) for name in names]
        path = files.find(*candidates)
        if path is None:
            contents.notes.append(f"no {' or '.join(candidates)}: the split {split} is not built")
            continue
        captions: dict[str, list] = {}
        rows = contents.splits[split] = SplitRows()
        with checking_fields(path):
            for entry in read_json(path, list):
                caption = entry["caption"]
                captions.setdefault(entry["image"], []).append(caption)
            for image, texts in captions.items():
                rows.add_captions(image.split("/")[-1], find(image), texts, next(numbers))
    return contents
