"""Reads built data sets of captions with TFDS alone, to compare with what the builders were given."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from cbalign.data.datasets.catalogue import prepare


def read_split(name: str, split: str, data_dir: str | None = None) -> dict:
    """One split in memory: encoded images, captions, ids, names and, if there are any, groups, in the order stored."""
    folder = pathlib.Path(name)
    builder = tfds.builder_from_directory(folder) if folder.is_absolute() else prepare(name, data_dir)
    stored = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False)
    records = list(tfds.as_numpy(stored))
    return {
        "images": [record["image"] for record in records],
        "captions": [[caption.decode() for caption in record["captions"]] for record in records],
        "ids": np.array([record["id"] for record in records], np.int64),
        "names": [record["name"].decode() for record in records],
        "groups": [record["group"].decode() for record in records if "group" in record],
    }
