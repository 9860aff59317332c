"""TFDS builder of `sbu`: SBU Captions, Flickr images with the captions of their owners."""

from __future__ import annotations

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.img2dataset import read_pairs
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder
from cbalign.data.datasets.official.official_files import OfficialFiles


class Sbu(OfficialBuilder):
    """SBU Captions: Flickr images with the captions of their owners."""

    name = "sbu"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    SHUFFLE = False
    # Published URLs, some of which are dead by now; ALBEF obtained 860,000 images.
    EXPECTED = {"train": 1_000_000}
    INSTRUCTIONS = """
    00000/000000000.jpg, .txt (folders), or 00000.tar (webdataset), at any depth
        written by img2dataset from sbu-captions-all.json, https://www.cs.rice.edu/~vo9/sbucaptions/
    or ALBEF's sbu.json, a list of {"image": path, "caption": text}, with the images it names
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        return read_pairs(files, {"train": ("sbu.json",)})
