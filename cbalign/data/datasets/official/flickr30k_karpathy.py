"""TFDS builder of `flickr30k_karpathy`: Flickr30K with five captions per image, in Karpathy's splits."""

from __future__ import annotations

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.karpathy import read_albef, read_karpathy
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder
from cbalign.data.datasets.official.official_files import OfficialFiles


class Flickr30kKarpathy(OfficialBuilder):
    """Flickr30K with five captions per image, in Karpathy's splits."""

    name = "flickr30k_karpathy"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    EXPECTED = {"train": 29_000, "val": 1_014, "test": 1_000}
    INSTRUCTIONS = """
    flickr30k-images/*.jpg
        on request from https://shannon.cs.illinois.edu/DenotationGraph/, unpacked
    dataset_flickr30k.json
        from caption_datasets.zip, https://cs.stanford.edu/people/karpathy/deepimagesent/
        or ALBEF's flickr30k_train.json, flickr30k_val.json and flickr30k_test.json
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        path = files.find("dataset_flickr30k.json")
        if path:
            return read_karpathy(path, lambda entry: files.image(entry["filename"]))
        return read_albef(files, ("flickr30k_{split}.json",), files.image)
