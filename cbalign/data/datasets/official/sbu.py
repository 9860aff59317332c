"""TFDS builder of `sbu`: SBU Captions, images of Flickr with the captions of their owners."""

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.img2dataset import read_pairs
from cbalign.data.datasets.official.manual import Contents, Files, ManualBuilder


class Sbu(ManualBuilder):
    """SBU Captions: images of Flickr with the captions of their owners."""

    name = "sbu"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    SHUFFLE = False
    # Addresses as published; some no longer answer. ALBEF had 860 thousand images.
    EXPECTED = {"train": 1_000_000}
    INSTRUCTIONS = """
    00000/000000000.jpg, .txt (folders), or 00000.tar (webdataset), at any depth
        written by img2dataset from sbu-captions-all.json, https://www.cs.rice.edu/~vo9/sbucaptions/
    or else ALBEF's sbu.json, a list of {"image": path, "caption": text}, and the images it names
    """

    def read(self, files: Files) -> Contents:
        return read_pairs(files, {"train": ("sbu.json",)})
