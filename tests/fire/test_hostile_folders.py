"""Folders with things in them that are no images: nothing waits for them, and what is left out is counted."""

import json
import os
import pathlib
import socket
import threading

import pytest

from cbalign.data import stored_images
from cbalign.data.datasets import folder as folder_import
from cbalign.data.datasets.official.miniature import write_image
from cbalign.data.datasets.official.official_files import OfficialFiles
from cbalign.data.file_tree import describe
from cbalign.data.image_files import BadImage, load_rgb
from cbalign.inference.folder_scan import scan_folder
from tests.fire.fuzzing import files_below, run


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Two images among a named pipe, a socket, a loop of links, a link out of the folder, one to nothing, a device."""
    folder = tmp_path / "images"
    for number, name in enumerate("ab"):
        write_image(folder / f"{name}.png", number, size=(16, 12), kind="PNG")
    os.mkfifo(folder / "pipe.png")
    # A socket's path may have a hundred characters only.
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
    (folder / "loop").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    (folder / "lost.png").symlink_to("nowhere.png")
    (folder / "null.png").symlink_to("/dev/null")
    write_image(tmp_path / "outside" / "c.png", 2, size=(16, 12), kind="PNG")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "\udce9.txt").write_text("a file whose name is no text")
    return folder


def within(seconds, function, *arguments):
    """The result of a function that must not take longer."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments)), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits for something, or failed"
    return found[0]


def test_a_scan_ends_and_counts(hostile):
    scan = within(60, scan_folder, hostile)
    # A link out of the folder is followed, as one to a disk of images is meant to be.
    assert set(scan.files) == {"a.png", "b.png", "out/c.png"}
    told = describe(scan.left_out)
    for words in (
        "1 named pipe",
        "1 socket",
        "2 links to nothing",
        "1 device",
        "1 linked folder that is searched already",
    ):
        assert words in told, told


@pytest.mark.parametrize("name", ["pipe.png", "socket.png", "self.png", "lost.png", "null.png", "loop", "nothing.png"])
def test_no_reader_waits(hostile, name):
    def read():
        with pytest.raises(BadImage):
            load_rgb(hostile / name)
        return True

    assert within(60, read)


def test_import_of_a_hostile_folder(hostile, tmp_path, capsys):
    names = ["a.png", "b.png", "pipe.png", "socket.png", "self.png", "loop/a.png", "null.png", "/dev/zero", "out/c.png"]
    rows = [{"image": name, "caption": f"caption {number}"} for number, name in enumerate(names)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    before = files_below(tmp_path)
    code, out, err = run(
        capsys,
        *("data", "import", f"--images={hostile}", f"--captions={tmp_path / 'rows.json'}", f"--out={tmp_path / 'set'}"),
        *("--test=0", "--max-bad=0.9"),
    )
    assert code == 0, err
    assert "skipped 5 of 9 rows: missing" in out, out
    # Printed and stored, although it is no valid text.
    report = json.loads((tmp_path / "set" / folder_import.REPORT).read_text())
    assert any("1 .txt file" in note for note in report["notes"]), report["notes"]
    left = {path: size for path, size in files_below(tmp_path).items() if tmp_path / "set" not in (path, *path.parents)}
    assert left == before


@pytest.mark.parametrize("kind", ["pipe.png", "loop", "self.png", "null.png"])
def test_a_pipe_for_captions_or_a_checkpoint(hostile, tmp_path, capsys, kind):
    for arguments in (
        ("data", "import", f"--images={hostile}", f"--captions={hostile / kind}", f"--out={tmp_path / 'set'}"),
        ("convert", "--source=deit", f"--checkpoint={hostile / kind}", "--config=emoji", f"--out={tmp_path / 'set'}"),
        ("plan", f"--config={hostile / kind}"),
    ):
        code, *_ = within(120, run, capsys, *arguments)
        assert code == 2 and not (tmp_path / "set").exists()


def test_files_that_disappear_while_they_are_read(tmp_path, monkeypatch):
    for number, name in enumerate("abc"):
        write_image(tmp_path / "images" / f"{name}.png", number, size=(16, 12), kind="PNG")
    rows = [{"image": f"{name}.png", "caption": name * 3} for name in "abc"]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    encode = folder_import.encode_file

    def encode_and_lose(path, *arguments):
        # b is gone before it is opened, c between its two readers.
        if path.name == "b.png":
            path.unlink()
        encoded = encode(path, *arguments)
        if path.name == "c.png":
            path.unlink()
        return encoded

    monkeypatch.setattr(folder_import, "encode_file", encode_and_lose)
    report = folder_import.import_folder(
        tmp_path / "images", tmp_path / "rows.json", tmp_path / "set", test=0, max_bad=0.9
    )
    assert report["skipped"] == {"missing": {"rows": 2, "files": report["skipped"]["missing"]["files"]}}
    with pytest.raises(BadImage, match="^missing$"):
        stored_images.check_png(tmp_path / "images" / "c.png")


def test_an_image_that_disappears_between_listing_and_reading(tmp_path, monkeypatch):
    write_image(tmp_path / "a.jpg", 1)
    files = OfficialFiles(tmp_path)
    image = files.image("a.jpg")
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(BadImage, match="^missing$"):
        image.read()
    monkeypatch.setattr(os.path, "isfile", lambda path: True)
    assert OfficialFiles(tmp_path).image("a.jpg") is None


def test_a_file_that_is_replaced_by_a_link_loop(tmp_path):
    path = pathlib.Path(tmp_path / "a.png")
    path.symlink_to(path)
    with pytest.raises(BadImage):
        load_rgb(path)
