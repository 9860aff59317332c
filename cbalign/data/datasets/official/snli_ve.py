"""TFDS builder of `snli_ve`: sentences that follow from an image of Flickr30K, contradict it, or neither."""

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.json_files import fields_of, read_json_lines
from cbalign.data.datasets.official.manual import Contents, Files, Listing, ManualBuilder

_FILES = {"train": "snli_ve_train.jsonl", "val": "snli_ve_dev.jsonl", "test": "snli_ve_test.jsonl"}
# The release, its parser and its README spell it in three ways.
_IMAGE_FIELDS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")


class SnliVe(ManualBuilder):
    """Sentences that follow from an image of Flickr30K (2), are neutral to it (1) or contradict it (0)."""

    name = "snli_ve"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.entailment
    EXPECTED = {"train": 529_527, "val": 17_858, "test": 17_901}
    INSTRUCTIONS = """
    flickr30k-images/*.jpg
        on request from https://shannon.cs.illinois.edu/DenotationGraph/, unpacked
    snli_ve_train.jsonl, snli_ve_dev.jsonl, snli_ve_test.jsonl
        from https://github.com/necla-ml/SNLI-VE
    """

    def read(self, files: Files) -> Contents:
        contents = Contents()
        for split, name in _FILES.items():
            path = files.find(name)
            if path is None:
                contents.notes.append(f"no {name}: the split {split} is not built")
                continue
            listing = contents.splits[split] = Listing()
            with fields_of(path):
                for entry in read_json_lines(path):
                    _add(listing, files, entry)
        return contents


def _add(listing: Listing, files: Files, entry: dict) -> None:
    image = next((str(entry[field]) for field in _IMAGE_FIELDS if field in entry), None)
    if image is None:
        raise KeyError(_IMAGE_FIELDS[0])
    image = image.removesuffix(".jpg")
    if entry["gold_label"] == "-":
        listing.left_out["no agreed label"].append(entry["pairID"])
        return
    label = schema.ENTAILMENT_LABELS.index(entry["gold_label"])
    values = (image, entry["sentence2"], label, entry["pairID"])
    listing.add(entry["pairID"], [files.image(f"{image}.jpg")], [entry["sentence2"]], values)
