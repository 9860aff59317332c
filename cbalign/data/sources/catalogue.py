"""Image-text data sets by name: built on first use, and read whole into memory.

Every data set of this project has the features `image`, `captions`, `id` (records that share one are joint positives)
and `name` (unique, for people); some also have `group`, by which reports are made apart.
"""

import contextlib
import importlib
import pathlib
import re

import filelock
import numpy as np
import tensorflow_datasets as tfds

from cbalign.errors import UserError

KNOWN = ("emoji", "scenes", "scenes_vqa", "scenes_nlvr2", "scenes_ve")
_REQUIRED = ("image", "captions", "id", "name")
_INFO_FILE = "dataset_info.json"
_BATCH = 1024


def prepare(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is ready to read, building the data set on first use.

    Several processes may call this at once: one builds, the others wait for it.

    Args:
        name: `emoji`, `scenes`, `scenes/CONFIG`, or the folder that `cbalign data import` wrote.
        data_dir: where built data sets are kept; TFDS's default (`TFDS_DATA_DIR` or a folder at home) if None.

    Raises:
        UserError: the name is neither known nor the folder of a data set.
    """
    base, _, config = name.partition("/")
    if base in KNOWN:
        return _build_if_missing(name, base, config, data_dir)
    folder = pathlib.Path(name)
    if (folder / _INFO_FILE).is_file():
        return tfds.builder_from_directory(folder)
    state = "holds no data set" if folder.is_dir() else "is no data set"
    raise UserError(
        f"{name} {state}: give one of {', '.join(KNOWN)}, or a folder written by "
        "cbalign data import --images=DIR --captions=FILE --out=FOLDER"
    )


def load_split(name: str, split: str, data_dir: str | None = None) -> dict:
    """Reads one split into memory, pictures still encoded.

    Args:
        name: as for `prepare`.
        split: name of a split, or a slice of one such as `train[:10%]`.
        data_dir: as for `prepare`.

    Returns:
        images: list of n encoded pictures, bytes.
        captions: list of n lists of strings.
        ids: int64[n]; equal for joint positives.
        names: list of n strings.
        groups: list of n strings, or None where the data set has none.

    Raises:
        UserError: the data set or the split is unknown, or the data set lacks a feature.
    """
    builder = prepare(name, data_dir)
    known, features = list(builder.info.splits), builder.info.features
    if re.split(r"[\[+]", split)[0].strip() not in known:
        raise UserError(f"{name} has no split {split}: give one of {', '.join(known)}")
    lacking = [feature for feature in _REQUIRED if feature not in features]
    if lacking:
        raise UserError(f"{name} has no {', '.join(lacking)}: make it anew with cbalign data import")
    wanted = [*_REQUIRED, *(["group"] if "group" in features else [])]
    records = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False)
    records = records.map(lambda record: {feature: record[feature] for feature in wanted})
    columns = {feature: [] for feature in wanted}
    # Python sees a thousand records at a time: one by one, the loop costs more than the reading.
    for batch in records.ragged_batch(_BATCH).prefetch(1):
        for feature in wanted:
            columns[feature] += batch[feature].to_list() if feature == "captions" else list(batch[feature].numpy())
    return {
        "images": columns["image"],
        "captions": [[caption.decode() for caption in captions] for captions in columns["captions"]],
        "ids": np.asarray(columns["id"], np.int64),
        "names": [name.decode() for name in columns["name"]],
        "groups": [group.decode() for group in columns["group"]] if "group" in wanted else None,
    }


def _build_if_missing(name: str, base: str, config: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    importlib.import_module(f"cbalign.data.sources.{base}")
    configs = list(tfds.builder_cls(base).builder_configs)
    if config and config not in configs:
        raise UserError(f"{base} has no variant {config}: give {', '.join([base, *(f'{base}/{c}' for c in configs)])}")
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.data_path.exists():
        return builder
    with _lock(builder.data_path):
        # Anew, since another process may have finished while this one waited.
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.data_path.exists():
            print(f"Building the data set {name} in {builder.data_path} (once, then reused)", flush=True)
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(None):
                builder.download_and_prepare()
    return builder


def _lock(path) -> contextlib.AbstractContextManager:
    """A lock file beside the folder to be built: TFDS's own renaming fails for the second of two processes."""
    if "://" in str(path):
        # Buckets know no lock files; there, one process should build before the others start.
        return contextlib.nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(f"{path}.lock")
