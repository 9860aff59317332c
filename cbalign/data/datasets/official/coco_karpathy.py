"""TFDS builder of `coco_karpathy`: COCO 2014 with five captions an image, in Karpathy's splits."""

import re

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.karpathy import read_albef, read_karpathy
from cbalign.data.datasets.official.manual import Contents, Files, ManualBuilder, ImageFile


class CocoKarpathy(ManualBuilder):
    """COCO 2014 with five captions an image, in Karpathy's splits; `train` includes his `restval`."""

    name = "coco_karpathy"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    # Karpathy and Fei-Fei, CVPR 2015, with the rest of the validation images in `train`, as everyone has them.
    EXPECTED = {"train": 113_287, "val": 5_000, "test": 5_000}
    INSTRUCTIONS = """
    train2014/COCO_train2014_*.jpg, val2014/COCO_val2014_*.jpg
        train2014.zip and val2014.zip from https://cocodataset.org/#download, unpacked; the folders train2017 and
        val2017 do as well, since they hold the same images under shorter names
    dataset_coco.json
        from caption_datasets.zip, https://cs.stanford.edu/people/karpathy/deepimagesent/
        or else ALBEF's coco_karpathy_train.json, coco_karpathy_val.json and coco_karpathy_test.json
    """

    def read(self, files: Files) -> Contents:
        path = files.find("dataset_coco.json")
        if path:
            return read_karpathy(path, lambda entry: coco_image(files, f"{entry['filepath']}/{entry['filename']}"))
        names = ("coco_karpathy_{split}.json", "coco_{split}.json")
        return read_albef(files, names, lambda image: coco_image(files, image))


def coco_image(files: Files, written: str) -> ImageFile | None:
    """Finds an image of COCO by its path of 2014, or else by the name it has had since 2017."""
    number = re.search(r"(\d{12})\.jpg$", written)
    return files.image(written, *([number.group()] if number else []))
