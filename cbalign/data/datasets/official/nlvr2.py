"""TFDS builder of `nlvr2`: statements about two images, true or false."""

from __future__ import annotations

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.annotation_files import checking_fields, read_json_lines
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, SplitRows
from cbalign.data.datasets.official.official_files import OfficialFiles

_FILES = {"train": "train.json", "val": "dev.json", "test": "test1.json"}
_LABELS = {"true": 1, "false": 0}


class Nlvr2(OfficialBuilder):
    """True and false statements about two photographs; `test` is the public test split."""

    name = "nlvr2"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.image_pairs
    # Suhr et al., ACL 2019.
    EXPECTED = {"train": 86_373, "val": 6_982, "test": 6_967}
    INSTRUCTIONS = """
    images/train/*/train-*.png, dev/dev-*.png, test1/test1-*.png
        on request through the form at https://lil.nlp.cornell.edu/nlvr/, unpacked
    train.json, dev.json, test1.json
        from the folder nlvr2/data of https://github.com/lil-lab/nlvr; a clone of the repository works too
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        contents = Contents()
        for split, name in _FILES.items():
            # A clone also contains files of the same names for the synthetic images of the first NLVR.
            path = files.find(f"nlvr2/data/{name}", f"data/{name}", name)
            if path is None:
                contents.notes.append(f"no {name}: the split {split} is not built")
                continue
            rows = contents.splits[split] = SplitRows()
            with checking_fields(path):
                for entry in read_json_lines(path):
                    identifier, sentence = entry["identifier"], entry["sentence"]
                    # The last number distinguishes the sentences about one pair.
                    pair = identifier.rpartition("-")[0]
                    folder = name.removesuffix(".json")
                    if "directory" in entry:
                        folder = f"images/train/{entry['directory']}"
                    images = [files.image(f"{folder}/{pair}-img{side}.png") for side in (0, 1)]
                    label = _LABELS[str(entry["label"]).lower()]
                    rows.add(identifier, images, [sentence], (sentence, label, identifier))
        return contents
