"""TFDS builder of `cc3m`: Conceptual Captions, images of the web with cleaned alternative texts."""

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.img2dataset import read_pairs
from cbalign.data.datasets.official.manual import Contents, Files, ManualBuilder


class Cc3m(ManualBuilder):
    """Conceptual Captions of three million: images of the web with cleaned alternative texts."""

    name = "cc3m"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    SHUFFLE = False
    # Addresses as published; many no longer answer. ALBEF had 2.95 million images of both splits.
    EXPECTED = {"train": 3_318_333, "val": 15_840}
    INSTRUCTIONS = """
    train/00000/000000000.jpg, .txt (folders), or train/00000.tar (webdataset); the same under validation/
        written by img2dataset from Train_GCC-training.tsv and Validation_GCC-1.1.0-Validation.tsv,
        https://ai.google.com/research/ConceptualCaptions/download
    or else ALBEF's cc3m_train.json and cc3m_val.json, lists of {"image": path, "caption": text}, and the images
    """

    def read(self, files: Files) -> Contents:
        return read_pairs(files, {"train": ("cc3m_train.json",), "val": ("cc3m_val.json",)})
