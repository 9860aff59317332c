"""TFDS builder of `snli_ve`: sentences that a Flickr30K image entails, contradicts, or neither."""

from __future__ import annotations

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.annotation_files import checking_fields, read_json_lines
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, SplitRows
from cbalign.data.datasets.official.official_files import OfficialFiles

_FILES = {"train": "snli_ve_train.jsonl", "val": "snli_ve_dev.jsonl", "test": "snli_ve_test.jsonl"}
# The release, its parser and its README each spell it differently.
_IMAGE_FIELDS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")


class SnliVe(OfficialBuilder):
    """Sentences that a Flickr30K image entails (2), leaves open (1) or contradicts (0)."""

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

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        contents = Contents()
        for split, name in _FILES.items():
            path = files.find(name)
            if path is None:
                contents.notes.append(f"no {name}: the split {split} is not built")
                continue
            rows = contents.splits[split] = SplitRows()
            with checking_fields(path):
                for entry in read_json_lines(path):
                    _add(rows, files, entry)
        return contents


def _add(rows: SplitRows, files: OfficialFiles, entry: dict) -> None:
    image = next((str(entry[field]) for field in _IMAGE_FIELDS if field in entry), None)
    if image is None:
        raise KeyError(_IMAGE_FIELDS[0])
    image = image.removesuffix(".jpg")
    if entry["gold_label"] == "-":
        rows.skipped["no agreed label"].append(entry["pairID"])
        return
    label = schema.ENTAILMENT_LABELS.index(entry["gold_label"])
    values = (image, entry["sentence2"], label, entry["pairID"])
    rows.add(entry["pairID"], [files.image(f"{image}.jpg")], [entry["sentence2"]], values)
