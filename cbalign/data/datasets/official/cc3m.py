"""TFDS builder of `cc3m`: Conceptual Captions, web images with cleaned alt texts."""

from __future__ import annotations

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.img2dataset import read_pairs
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder
from cbalign.data.datasets.official.official_files import OfficialFiles


class Cc3m(OfficialBuilder):
    """Conceptual Captions 3M: web images with cleaned alt texts."""

    name = "cc3m"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    SHUFFLE = False
    # Published URLs, many of which are dead by now; ALBEF obtained 2.95 million images of both splits.
    EXPECTED = {"train": 3_318_333, "val": 15_840}
    INSTRUCTIONS = """
    train/00000/000000000.jpg, .txt (folders), or train/00000.tar (webdataset); the same under validation/
        written by img2dataset from Train_GCC-training.tsv and Validation_GCC-1.1.0-Validation.tsv,
        https://ai.google.com/research/ConceptualCaptions/download
    or ALBEF's cc3m_train.json and cc3m_val.json, lists of {"image": path, "caption": text}, with the images
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        return read_pairs(files, {"train": ("cc3m_train.json",), "val": ("cc3m_val.json",)})
