"""Renders sets of icons to PNG files in a cache, in parallel, in parts of a set: a killed rendering goes on from there.

A part is stored as `SET-NUMBER.png`, its images one after another, and `SET-NUMBER.json`, which says where each begins
and is written last. Imports no tensorflow: every process that renders imports this module.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import io
import multiprocessing
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from cbalign.data.datasets.official.icon_package import IconSet, is_animated, svg
from cbalign.data.progress import Progress
from cbalign.errors import UserError
from cbalign.storage import read_json, write_atomically, write_json

# To be raised when the same package would be rendered differently.
_FORMAT = 1
_PART = 1000
# Grey levels below white that a drawing must reach, and difference of channels that counts as a colour.
_BLANK, _COLORED = 8, 24


class Rendered(NamedTuple):
    """One image of the cache.

    Attributes:
      file: the file that holds it.
      offset: byte at which it begins.
      size: its bytes, a PNG.
      digest: of its pixels.
      color: whether it is more than shades of grey.
    """

    file: str
    offset: int
    size: int
    digest: str
    color: bool


def render_sets(
    sets: Iterable[IconSet], folder: pathlib.Path, *, size: int, workers: int
) -> tuple[dict[str, Rendered], dict[str, list[str]]]:
    """Renders all icons of some sets; sets that are in the cache are read from there.

    Args:
      sets: the sets.
      folder: of the cache.
      size: side in pixels.
      workers: number of processes.

    Returns:
      {"SET/ICON": its image}, and {reason: names of the icons that have no image}.

    Raises:
      UserError: resvg_py is not installed, or the cache cannot be written.
    """
    renderer = _renderer_version()
    images, failed, waiting = {}, {}, []
    # Small sets first: were there time for a part only, it would be one of many styles.
    for icon_set in sorted(sets, key=lambda icon_set: len(icon_set.icons)):
        for number, names in enumerate(_batched(list(icon_set.icons), _PART)):
            job = _Job(
                name=icon_set.name,
                entries={name: icon_set.icons[name] for name in names},
                stem=folder / f"{icon_set.name}-{number:03d}",
                size=size,
                key=f"{_FORMAT} {renderer} {size} {_PART} {icon_set.digest}{_settled_key(icon_set)}",
            )
            index = read_json(job.index_file)
            if index is None or index["key"] != job.key:
                waiting.append(job)
            else:
                _collect(job, index, images, failed)
    done = len(images) + sum(map(len, failed.values()))
    total = done + sum(len(job.entries) for job in waiting)
    if done and waiting:
        print(f"resuming: {done:,} of {total:,} icons have been rendered", flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Progress("rendering", total, start=done, unit="icon") as progress:
            for job, index in _each(waiting, workers):
                _collect(job, index, images, failed)
                progress.update(len(job.entries))
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}): free up space, or name another --data-dir"
        ) from None
    return images, failed


def _settled_key(icon_set: IconSet) -> str:
    return " settled" if any(map(is_animated, icon_set.icons.values())) else ""


def _batched(names: list[str], size: int) -> Iterator[list[str]]:
    """Consecutive parts of a list (`itertools.batched` is new in Python 3.12)."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


@dataclasses.dataclass
class _Job:
    """A part of a set to render; `stem` is the path of its files without extension."""

    name: str
    entries: dict[str, dict]
    stem: pathlib.Path
    size: int
    key: str

    @property
    def image_file(self) -> pathlib.Path:
        return self.stem.with_name(f"{self.stem.name}.png")

    @property
    def index_file(self) -> pathlib.Path:
        return self.stem.with_name(f"{self.stem.name}.json")


def _each(jobs: list[_Job], workers: int) -> Iterator[tuple[_Job, dict]]:
    """Yields (job, its index) as they are done."""
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            yield job, _render_part(job)
        return
    # Spawned, not forked: this process has threads of tensorflow.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(_render_part, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures.pop(future), future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _renderer_version() -> str:
    try:
        import resvg_py
    except ModuleNotFoundError:
        raise UserError("rendering icons needs the package resvg_py: pip install 'cbalign[icons]'") from None
    return str(resvg_py.__version__)


def _collect(job: _Job, index: dict, images: dict, failed: dict) -> None:
    file = os.fspath(job.image_file)
    for name, (offset, size, digest, color) in index["images"].items():
        images[f"{job.name}/{name}"] = Rendered(file, offset, size, digest, color)
    for reason, names in index["failed"].items():
        failed.setdefault(reason, []).extend(f"{job.name}/{name}" for name in names)


def _render_part(job: _Job) -> dict:
    """Renders the icons of a part, writes both files and returns the index."""
    index = {"key": job.key, "images": {}, "failed": {}}
    parts, offset = [], 0
    for name, entry in job.entries.items():
        try:
            pixels = render(entry, job.size)
        except ValueError:
            index["failed"].setdefault("cannot be rendered", []).append(name)
            continue
        if pixels.min() > 255 - _BLANK:
            index["failed"].setdefault("blank", []).append(name)
            continue
        data = encode(pixels)
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
        index["images"][name] = [offset, len(data), digest, is_colored(pixels)]
        parts.append(data)
        offset += len(data)
    write_atomically(job.image_file, b"".join(parts))
    write_json(job.index_file, index, indent=None)
    return index


def render(entry: dict, size: int) -> np.ndarray:
    """Draws an icon on white, in black where it says `currentColor`.

    Args:
      entry: of `IconSet.icons`.
      size: side in pixels.

    Returns:
      uint8 [size, size, 3].

    Raises:
      ValueError: it is no valid SVG.
    """
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg(entry, size), background="#ffffff", skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as image:
        return np.asarray(image.convert("RGB"))


def is_colored(pixels: np.ndarray) -> bool:
    """Whether an image uint8 [h, w, 3] has other colours than shades of grey."""
    return bool((pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2) > _COLORED).any())


def encode(pixels: np.ndarray) -> bytes:
    """An image uint8 [h, w, 3] as PNG without loss, with one channel where all three are equal."""
    grey = np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()
