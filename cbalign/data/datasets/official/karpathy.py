"""Karpathy's splits of COCO and Flickr30K, from his files or from ALBEF's lists."""

import pathlib
from collections.abc import Callable

from cbalign.data.datasets.official.json_files import fields_of, read_json
from cbalign.data.datasets.official.manual import Contents, Files, Listing, ImageFile

SPLITS = ("train", "val", "test")
# COCO's validation images that are not in `val` or `test`; everyone trains on them.
_SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def read_karpathy(path: pathlib.Path, find: Callable[[dict], ImageFile | None]) -> Contents:
    """Reads `dataset_coco.json` or `dataset_flickr30k.json`.

    Args:
      path: the file.
      find: the image of one of its objects.

    Returns:
      Rows of `schema.captions`; the id is that of COCO, or else Karpathy's running number.
    """
    listings = {split: Listing() for split in SPLITS}
    with fields_of(path):
        for entry in read_json(path, dict)["images"]:
            listings[_SPLIT_OF[entry["split"]]].add_captions(
                entry["filename"], find(entry), [sentence["raw"] for sentence in entry["sentences"]],
                entry.get("cocoid", entry["imgid"]),
            )
    return Contents({split: listing for split, listing in listings.items() if listing.listed})


def read_albef(files: Files, names: tuple[str, ...], find: Callable[[str], ImageFile | None]) -> Contents:
    """Reads ALBEF's lists, one file a split, with a record a caption (training) or an image (evaluation).

    Args:
      files: the manual folder.
      names: names of the lists, of which the first that is there is read, with `{split}` for the split.
      find: the image meant by a path of the lists.

    Returns:
      Rows of `schema.captions`; images are numbered in the order of the lists.
    """
    contents, number = Contents(), 0
    for split in SPLITS:
        candidates = [name.format(split=split) for name in names]
        path = files.find(*candidates)
        if path is None:
            contents.notes.append(f"no {' or '.join(candidates)}: the split {split} is not built")
            continue
        captions: dict[str, list[str]] = {}
        with fields_of(path):
            for entry in read_json(path, list):
                caption = entry["caption"]
                captions.setdefault(entry["image"], []).extend([caption] if isinstance(caption, str) else caption)
        listing = contents.splits[split] = Listing()
        for number, (image, texts) in enumerate(captions.items(), number):
            listing.add_captions(image.split("/")[-1], find(image), texts, number)
        number += 1
    return contents
