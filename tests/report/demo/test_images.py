"""Which images the page shows, and that no file outside the folder is read."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cbalign.errors import UserError
from cbalign.report.demo.images import THUMBNAIL_SIDE, open_images
from tests.report.demo.conftest import HOSTILE_CAPTION, HOSTILE_EXAMPLE, HOSTILE_NAME, blotches


def test_links_that_lead_outside_are_counted_and_not_shown(folder):
    shown = open_images(folder, encoder=None)
    inside = [f"{i}.png" for i in range(6)] + ["broken.png", "inside.png", "sub/6.jpg", HOSTILE_NAME]
    assert sorted(shown.names) == sorted(inside)
    assert shown.notes == ["2 images are links that lead outside the folder; they are not shown"]
    expected = {"1.png": HOSTILE_CAPTION, "2.png": "a red circle", "3.png": HOSTILE_EXAMPLE, "sub/6.jpg": "漢字 😀"}
    assert shown.captions == {name: [caption] for name, caption in expected.items()}
    np.testing.assert_array_equal(shown.pixels(shown.names.index("3.png")), np.asarray(blotches(3)))
    with pytest.raises(UserError, match=r"broken.png cannot be shown \(broken\)"):
        shown.pixels(shown.names.index("broken.png"))


def test_a_file_that_becomes_a_link_is_not_read(folder, tmp_path):
    copy, outside = tmp_path / "copy", tmp_path / "private.png"
    shutil.copytree(folder, copy, symlinks=True)
    blotches(50).save(outside)
    shown = open_images(copy, encoder=None)
    row = shown.names.index("4.png")
    (copy / "4.png").unlink()
    with pytest.raises(UserError, match="4.png is no longer there"):
        shown.thumbnail(row, tmp_path / "thumbnails")
    (copy / "4.png").symlink_to(outside)
    for read in (lambda: shown.pixels(row), lambda: shown.thumbnail(row, tmp_path / "thumbnails")):
        with pytest.raises(UserError, match="4.png leads outside the folder"):
            read()
    assert not (tmp_path / "thumbnails").exists()


def test_a_folder_that_is_a_link_itself_is_shown(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert open_images(tmp_path / "link", encoder=None).names == open_images(folder, encoder=None).names


def test_thumbnails_are_reduced_and_made_once(folder, tmp_path):
    shown = open_images(folder, encoder=None)
    row = shown.names.index("0.png")
    blotches(0, (2000, 500)).save(folder / "0.png")
    try:
        file = shown.thumbnail(row, tmp_path)
        with Image.open(file) as image:
            assert image.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 4)
        state = file.stat()
        assert shown.thumbnail(row, tmp_path).stat() == state
    finally:
        blotches(0).save(folder / "0.png")


def test_captions_that_cannot_be_read_are_named(tmp_path):
    blotches(0).save(tmp_path / "a.png")
    (tmp_path / "captions.json").write_text("{")
    shown = open_images(tmp_path, encoder=None)
    assert shown.captions == {} and "captions.json, line 1: invalid JSON" in shown.notes[0]


def test_captions_outside_the_folder_are_not_read(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    blotches(0).save(images / "a.png")
    (tmp_path / "captions.csv").write_text("image,caption\na.png,private\n")
    (images / "captions.csv").symlink_to(tmp_path / "captions.csv")
    assert open_images(images, encoder=None).captions == {}


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing is not a folder"):
        open_images(tmp_path / "nothing", encoder=None)
    with pytest.raises(UserError, match="no images in .* that can be shown"):
        open_images(tmp_path, encoder=None)
