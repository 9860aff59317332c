"""Finds data sets by name, and builds them on first use.

A data set is a TFDS builder in the module of its name in one of `PACKAGES`: adding a file there adds the data set. A
data set of another package is added by `register`, or by importing the module that defines its builder.
"""

import contextlib
import functools
import importlib
import inspect
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Iterator

import filelock
import tensorflow_datasets as tfds

from cbalign.data.datasets.disk_errors import cannot_write, disk_cause
from cbalign.errors import UserError

PACKAGES = ("cbalign.data.datasets", "cbalign.data.datasets.generated", "cbalign.data.datasets.official")
_INFO_FILE = "dataset_info.json"
_registered: dict[str, str] = {}


def register(name: str, module: str) -> None:
    """Adds a data set that is defined outside this package.

    Args:
      name: name of its TFDS builder.
      module: the module that defines the builder; imported when the data set is first used.
    """
    _registered[name] = module


def names() -> tuple[str, ...]:
    """The names of all data sets, those of this package first."""
    found = [name for name in (*_modules(), *_registered) if _builder_class(name)]
    return tuple(dict.fromkeys([*found, *(cls.name for cls in _imported_classes())]))


def official_names() -> tuple[str, ...]:
    """The names of the data sets that are built from official files, which the user downloads."""
    return tuple(name for name in names() if _is_official(name))


def prepare(
    name: str, data_dir: str | None = None, *, manual_dir: str | None = None, workers: int = 1, max_bad: float = 0.05
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is ready to be read, building the data set on first use.

    Several processes may call this at the same time: one builds, the others wait for it.

    Args:
      name: one of `names()`, `NAME/CONFIG`, or a folder written by `cbalign data import`.
      data_dir: folder of built data sets; TFDS's default (`TFDS_DATA_DIR` or a folder in the home directory) if None.
      manual_dir: folder of the official files; only needed to build one of `official_names()`.
      workers: number of files of such a data set that are written in parallel.
      max_bad: largest share of a split's records that may be unusable.

    Raises:
      UserError: the name is neither a known data set nor the folder of one, or the data set cannot be built.
    """
    base = name.partition("/")[0]
    if manual_dir is not None:
        _check_manual(name, base, data_dir, workers)
    if _builder_class(base):
        build = functools.partial(_build_official, manual_dir=manual_dir, workers=workers, max_bad=max_bad)
        return _build_if_missing(name, data_dir, build if _is_official(base) else _build_generated)
    folder = pathlib.Path(name)
    if (folder / _INFO_FILE).is_file():
        return tfds.builder_from_directory(folder)
    state = "contains no data set" if folder.is_dir() else "is not a data set"
    raise UserError(
        f"{name} {state}: give one of {', '.join(names())}, or a folder written by "
        "cbalign data import --images=DIR --captions=FILE --out=FOLDER"
    )


def find_builder(name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of one of `names()`, whether or not the data set has been built.

    Raises:
      UserError: there is no such data set, or no such variant.
    """
    base, _, config = name.partition("/")
    cls = _builder_class(base)
    if cls is None:
        raise UserError(f"there is no data set {name}: give one of {', '.join(names())}")
    configs = list(cls.builder_configs)
    if config and config not in configs:
        raise UserError(f"{base} has no variant {config}: give {', '.join([base, *(f'{base}/{c}' for c in configs)])}")
    return tfds.builder(name, data_dir=data_dir)


def id_space(builder: tfds.core.DatasetBuilder) -> str:
    """Names what a data set's ids mean: records of data sets with the same space are positives if their ids are equal.

    Variants of a data set of official files number the same things; others, such as two imported folders, do not.
    """
    from cbalign.data.datasets.official.official_builder import OfficialBuilder

    return builder.name if isinstance(builder, OfficialBuilder) else str(builder.data_path)


def _builder_class(name: str) -> type[tfds.core.DatasetBuilder] | None:
    """The builder class of a data set, named without variant; None if there is no such data set."""
    if module := _modules().get(name) or _registered.get(name):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(f"the data set {name} needs the module {error.name}, which is not installed") from error
    return next((cls for cls in _imported_classes() if cls.name == name), None)


def _imported_classes(base: type = tfds.core.DatasetBuilder) -> Iterator[type[tfds.core.DatasetBuilder]]:
    """The concrete builders that are imported, except those that are part of TFDS, which have other features."""
    for cls in base.__subclasses__():
        if not inspect.isabstract(cls) and not cls.__module__.startswith("tensorflow_datasets."):
            yield cls
        yield from _imported_classes(cls)


@functools.cache
def _modules() -> dict[str, str]:
    """Module name to full name, of every module in `PACKAGES`; those that define no builder are helpers."""
    return {
        module.name: f"{package}.{module.name}"
        for package in PACKAGES
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
        if not module.ispkg
    }


def _is_official(name: str) -> bool:
    from cbalign.data.datasets.official.official_builder import OfficialBuilder

    cls = _builder_class(name)
    return cls is not None and issubclass(cls, OfficialBuilder)


def _check_manual(name: str, base: str, data_dir: str | None, workers: int) -> None:
    if not _is_official(base):
        raise UserError(f"{name} takes no --manual-dir; {', '.join(official_names())} do")
    if workers < 1:
        raise UserError(f"--workers={workers}: must be at least 1")
    path = find_builder(name, data_dir).data_path
    if path.exists():
        print(f"{name} has already been built: remove {path} to rebuild it", flush=True)


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
    # A new builder, since a builder reads the description of its data set when it is created.
    return find_builder(name, data_dir)


def _build_generated(builder: tfds.core.DatasetBuilder) -> None:
    print(f"Building the data set in {builder.data_path} (once; reused afterwards)", flush=True)
    tfds.disable_progress_bar()
    # What killed builds left; the lock is held, so that no other is at work.
    for left in builder.data_path.parent.glob(f"incomplete.*_{builder.data_path.name}"):
        left.rmtree()
    try:
        with contextlib.redirect_stdout(None):
            builder.download_and_prepare()
    except Exception as error:
        cause = disk_cause(error)
        if cause is None:
            raise
        raise UserError(cannot_write(builder.data_path.parent, cause, "--data-dir")) from None


def _build_official(builder: tfds.core.DatasetBuilder, *, manual_dir: str | None, workers: int, max_bad: float) -> None:
    from cbalign.data import split_index
    from cbalign.data.datasets.official import build_report, shard_writer

    if manual_dir is None:
        print(builder.instructions(), file=sys.stderr)
        raise UserError(f"{builder.full_name} has not been built in {builder.data_path}: see the instructions above")
    contents = builder.contents(manual_dir, workers)
    skipped = {split: rows.skipped for split, rows in contents.splits.items()}
    for line in [*contents.notes, *build_report.skipped_lines(skipped)]:
        print(line, flush=True)
    build_report.check_share(contents, max_bad)
    print(f"Building the data set in {builder.data_path}; if interrupted, the same command resumes", flush=True)
    shard_writer.write_shards(builder, contents, workers=workers)
    split_index.write_indices(find_builder(builder.full_name, builder.data_dir_root))
    builder.clean_up()


def _lock(path) -> contextlib.AbstractContextManager:
    """A lock file next to the folder to be built: of two processes, the second one would fail at TFDS's renaming."""
    if "://" in str(path):
        # Buckets have no lock files; build the data set there in one process before the others start.
        return contextlib.nullcontext()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(cannot_write(path.parent, error, "--data-dir")) from None
    return filelock.FileLock(f"{path}.lock")
