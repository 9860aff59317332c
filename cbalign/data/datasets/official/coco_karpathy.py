"""TFDS builder of `coco_karpathy`: COCO 2014 with five captions per image, in Karpathy's splits."""

from __future__ import annotations

import re

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.karpathy import read_albef, read_karpathy
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder
from cbalign.data.datasets.official.official_files import ImageFile, OfficialFiles


class CocoKarpathy(OfficialBuilder):
    """COCO 2014 with five captions per image, in Karpathy's splits; `train` includes his `restval`."""

    name = "coco_karpathy"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    # Karpathy and Fei-Fei, CVPR 2015, with the remaining validation images in `train` by convention.
    EXPECTED = {"train": 113_287, "val": 5_000, "test": 5_000}
    INSTRUCTIONS = """
    train2014/COCO_train2014_*.jpg, val2014/COCO_val2014_*.jpg
        train2014.zip and val2014.zip from https://cocodataset.org/#download, unpacked; the folders train2017 and
        val2017 work too, since they hold the same images under shorter names
    dataset_coco.json
        from caption_datasets.zip, https://cs.stanford.edu/people/karpathy/deepimagesent/
        or ALBEF's coco_karpathy_train.json, coco_karpathy_val.json and coco_karpathy_test.json
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        path = files.find("dataset_coco.json")
        if path:
            return read_karpathy(path, lambda entry: coco_image(files, f"{entry['filepath']}/{entry['filename']}"))
        names = ("coco_karpathy_{split}.json", "coco_{split}.json")
        return read_albef(files, names, lambda image: coco_image(files, image))


def coco_image(files: OfficialFiles, path: str) -> ImageFile | None:
    """Finds an image of COCO by its path in the 2014 release, or else by its name in the 2017 release."""
    number = re.search(r"(\d{12})\.jpg$", path)
    return files.image(path, *([number.group()] if number else []))
