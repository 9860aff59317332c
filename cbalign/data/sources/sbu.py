"""TFDS builder of `sbu`: SBU Captions, pictures of Flickr with the captions of their owners."""

import tensorflow_datasets as tfds

from cbalign.data.sources import schema
from cbalign.data.sources.img2dataset import read_pairs
from cbalign.data.sources.manual import Contents, Files, ManualBuilder


class Sbu(ManualBuilder):
    """SBU Captions: pictures of Flickr with the captions of their owners."""

    name = "sbu"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    SHUFFLE = False
    # Addresses as published; some no longer answer. ALBEF had 860 thousand pictures.
    EXPECTED = {"train": 1_000_000}
    INSTRUCTIONS = """
    00000/000000000.jpg, .txt (folders), or 00000.tar (webdataset), at any depth
        written by img2dataset from sbu-captions-all.json, https://www.cs.rice.edu/~vo9/sbucaptions/
    or else ALBEF's sbu.json, a list of {"image": path, "caption": text}, and the pictures it names
    """

    def read(self, files: Files) -> Contents:
        return read_pairs(files, {"train": ("sbu.json",)})
