"""Image-text data sets by name: built on first use, and read whole into memory.

Every data set of captions has the features `image`, `captions`, `id` (records that share one are joint positives) and
`name` (unique, for people); some also have `group`, by which reports are made apart. The features of the data sets of
other tasks are in `schema`.
"""

import contextlib
import functools
import importlib
import pathlib
import re
import sys
from collections.abc import Callable

import filelock
import numpy as np
import tensorflow_datasets as tfds

from cbalign.errors import UserError

MANUAL = (
    "coco_karpathy", "flickr30k_karpathy", "visual_genome", "sbu", "cc3m", "vqa_v2", "nlvr2", "snli_ve",
)
"""Made of files that people fetch themselves."""

KNOWN = ("emoji", "scenes", "scenes_vqa", "scenes_nlvr2", "scenes_ve", *MANUAL)
_MODULES = {
    "emoji": "cbalign.data.datasets.emoji",
    **{name: f"cbalign.data.datasets.generated.{name}" for name in ("scenes", "scenes_vqa", "scenes_nlvr2", "scenes_ve")},
    **{name: f"cbalign.data.datasets.official.{name}" for name in MANUAL},
}
_REQUIRED = ("image", "captions", "id", "name")
_INFO_FILE = "dataset_info.json"
_BATCH = 1024


def prepare(
    name: str, data_dir: str | None = None, *, manual_dir: str | None = None, workers: int = 1, max_bad: float = 0.05
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is ready to read, building the data set on first use.

    Several processes may call this at once: one builds, the others wait for it.

    Args:
      name: one of `KNOWN`, `NAME/CONFIG`, or the folder that `cbalign data import` wrote.
      data_dir: where built data sets are kept; TFDS's default (`TFDS_DATA_DIR` or a folder at home) if None.
      manual_dir: folder of the official files of one of `MANUAL`; only needed to build it.
      workers: files such a data set is written to at a time.
      max_bad: share of a split's records that may be unusable.

    Raises:
      UserError: the name is neither known nor the folder of a data set, or it cannot be built.
    """
    base = name.partition("/")[0]
    if manual_dir is not None:
        _check_manual(name, base, data_dir, workers)
    if base in KNOWN:
        build = functools.partial(_build_manual, manual_dir=manual_dir, workers=workers, max_bad=max_bad)
        return _build_if_missing(name, data_dir, build if base in MANUAL else _build_generated)
    folder = pathlib.Path(name)
    if (folder / _INFO_FILE).is_file():
        return tfds.builder_from_directory(folder)
    state = "holds no data set" if folder.is_dir() else "is no data set"
    raise UserError(
        f"{name} {state}: give one of {', '.join(KNOWN)}, or a folder written by "
        "cbalign data import --images=DIR --captions=FILE --out=FOLDER"
    )


def load_split(name: str, split: str, data_dir: str | None = None) -> dict:
    """Reads one split into memory, images still encoded.

    Args:
      name: as for `prepare`.
      split: name of a split, or a slice of one such as `train[:10%]`.
      data_dir: as for `prepare`.

    Returns:
      images: list of n encoded images, bytes.
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


def _check_manual(name: str, base: str, data_dir: str | None, workers: int) -> None:
    if base not in MANUAL:
        raise UserError(f"{name} takes no --manual-dir; {', '.join(MANUAL)} do")
    if workers < 1:
        raise UserError(f"--workers={workers}: at least one is needed")
    path = find_builder(name, data_dir).data_path
    if path.exists():
        print(f"{name} is built already: remove {path} to build it anew", flush=True)


def find_builder(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of one of `KNOWN`, whether its data set is built or not.

    Raises:
      UserError: there is no such data set, or no such variant.
    """
    base, _, config = name.partition("/")
    if base not in KNOWN:
        raise UserError(f"there is no data set {name}: give one of {', '.join(KNOWN)}")
    importlib.import_module(_MODULES[base])
    configs = list(tfds.builder_cls(base).builder_configs)
    if config and config not in configs:
        raise UserError(f"{base} has no variant {config}: give {', '.join([base, *(f'{base}/{c}' for c in configs)])}")
    return tfds.builder(name, data_dir=data_dir)


def _build_if_missing(
    name: str, data_dir: str | None, build: Callable[[tfds.core.DatasetBuilder], None]
) -> tfds.core.DatasetBuilder:
    builder = find_builder(name, data_dir)
    if builder.data_path.exists():
        return builder
    with _lock(builder.data_path):
        # Another process may have finished while this one waited.
        if not builder.data_path.exists():
            build(builder)
    # Anew, since a builder reads the description of its data set when it is made.
    return find_builder(name, data_dir)


def _build_generated(builder: tfds.core.DatasetBuilder) -> None:
    print(f"Building the data set in {builder.data_path} (once, then reused)", flush=True)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):
        builder.download_and_prepare()


def _build_manual(
    builder: tfds.core.DatasetBuilder, *, manual_dir: str | None, workers: int, max_bad: float
) -> None:
    from cbalign.data import split_index
    from cbalign.data.datasets.official import accounts
    from cbalign.data.datasets.official import shards

    if manual_dir is None:
        print(builder.instructions(), file=sys.stderr)
        raise UserError(f"{builder.name} is not built in {builder.data_path}: how to build it is said above")
    contents = builder.contents(manual_dir)
    for line in [*contents.notes, *accounts.left_out_lines({k: v.left_out for k, v in contents.splits.items()})]:
        print(line, flush=True)
    accounts.check_share(contents, max_bad)
    print(f"Building the data set in {builder.data_path}; if stopped, the same command goes on from there", flush=True)
    shards.build(builder, contents, workers=workers)
    split_index.write_indices(find_builder(builder.name, builder.data_dir_root))


def _lock(path) -> contextlib.AbstractContextManager:
    """A lock file beside the folder to be built: TFDS's own renaming fails for the second of two processes."""
    if "://" in str(path):
        # Buckets know no lock files; there, one process should build before the others start.
        return contextlib.nullcontext()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}): give another --data-dir") from None
    return filelock.FileLock(f"{path}.lock")
