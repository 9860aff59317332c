"""TFDS builder of `nlvr2`: statements about two images that are true or false."""

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.json_files import fields_of, read_json_lines
from cbalign.data.datasets.official.manual import Contents, Files, Listing, ManualBuilder

_FILES = {"train": "train.json", "val": "dev.json", "test": "test1.json"}
_LABELS = {"true": 1, "false": 0}


class Nlvr2(ManualBuilder):
    """Statements about two photographs that are true or false; `test` is the public one."""

    name = "nlvr2"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.image_pairs
    # Suhr et al., ACL 2019.
    EXPECTED = {"train": 86_373, "val": 6_982, "test": 6_967}
    INSTRUCTIONS = """
    images/train/*/train-*.png, dev/dev-*.png, test1/test1-*.png
        on request, by the form of https://lil.nlp.cornell.edu/nlvr/, unpacked
    train.json, dev.json, test1.json
        from the folder nlvr2/data of https://github.com/lil-lab/nlvr; a clone of it does as well
    """

    def read(self, files: Files) -> Contents:
        contents = Contents()
        for split, name in _FILES.items():
            # A clone also holds files of the same names for the drawn images of the first NLVR.
            path = files.find(f"nlvr2/data/{name}", f"data/{name}", name)
            if path is None:
                contents.notes.append(f"no {name}: the split {split} is not built")
                continue
            listing = contents.splits[split] = Listing()
            with fields_of(path):
                for entry in read_json_lines(path):
                    identifier, sentence = entry["identifier"], entry["sentence"]
                    # The last number tells apart the sentences about a pair.
                    pair = identifier.rpartition("-")[0]
                    folder = name.removesuffix(".json")
                    if "directory" in entry:
                        folder = f"images/train/{entry['directory']}"
                    images = [files.image(f"{folder}/{pair}-img{side}.png") for side in (0, 1)]
                    label = _LABELS[str(entry["label"]).lower()]
                    listing.add(identifier, images, [sentence], (sentence, label, identifier))
        return contents
