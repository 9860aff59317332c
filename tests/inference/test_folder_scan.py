"""Which files of a folder are searched, and what is said of the others."""

import os
import socket

import pytest

from cbalign.data.file_tree import describe
from cbalign.inference import folder_scan
from cbalign.inference.folder_scan import scan_folder


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("z.png", "a.JPEG", "sub/c.webp"):
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path / "images"


def test_files_are_listed_by_path_with_their_state(root):
    scan = scan_folder(root)
    assert list(scan.files) == ["a.JPEG", "sub/c.webp", "z.png"] and not scan.left_out
    state = (root / "z.png").stat()
    assert scan.files["z.png"] == (1, state.st_mtime_ns)


def test_what_is_no_image_file_is_counted_by_kind(root, monkeypatch, tmp_path):
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", "png", ".hidden", "paper.pdf"):
        (root / name).write_bytes(b"x")
    (root / ".folder").mkdir()
    (root / ".folder" / "no.png").write_bytes(b"x")
    os.mkfifo(root / "pipe.png")
    (root / "lost.png").symlink_to(root / "nothing.png")
    # A socket's path is short, so it is bound from within the folder.
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.jpg")
        scan = scan_folder(root)
    assert list(scan.files) == ["a.JPEG", "sub/c.webp", "z.png"]
    assert scan.left_out == {
        ".heic files (no decoder installed)": 2,
        ".txt files": 1,
        "files without a suffix": 2,
        ".pdf files": 1,
        "named pipes": 1,
        "links to nothing": 1,
        "sockets": 1,
    }
    assert describe(scan.left_out) == (
        "2 .heic files (no decoder installed), 2 files without a suffix, 1 .pdf file, 1 .txt file, 1 link to nothing, "
        "1 named pipe, 1 socket"
    )


def test_a_format_that_this_pillow_lacks_is_said(root, monkeypatch):
    (root / "a.avif").write_bytes(b"x")
    without = folder_scan.readable_suffixes() - {".avif"}
    monkeypatch.setattr(folder_scan, "readable_suffixes", lambda: without)
    assert scan_folder(root).left_out == {".avif files (no decoder installed)": 1}


def test_linked_files_and_folders_are_followed(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").write_bytes(b"x")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "linked.png").symlink_to(root / "z.png")
    scan = scan_folder(root)
    assert list(scan.files) == ["a.JPEG", "linked.png", "linked/d.png", "sub/c.webp", "z.png"] and not scan.left_out


def test_loops_of_links_end_and_no_folder_is_listed_twice(root):
    (root / "aaa").symlink_to(root / "sub")  # sorts before the folder it leads to
    (root / "sub" / "up").symlink_to(root)
    (root / "sub" / "self").symlink_to(root / "sub")
    (root / "loop").symlink_to(root / "loop")
    scan = scan_folder(root)
    assert list(scan.files) == ["a.JPEG", "sub/c.webp", "z.png"]
    assert scan.left_out == {"linked folders that are searched already": 3, "links to nothing": 1}
    assert "3 linked folders that are searched already" in describe(scan.left_out)
    assert describe({"linked folders that are searched already": 1}) == "1 linked folder that is searched already"


def test_a_folder_that_is_itself_a_link_is_searched(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert list(scan_folder(tmp_path / "link").files) == ["a.JPEG", "sub/c.webp", "z.png"]


def test_times_of_more_than_63_bits_are_cut(root):
    future = 2**63 + 10**9  # in the year 2262
    os.utime(root / "z.png", ns=(future, future))
    if (root / "z.png").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system knows no such time")
    assert scan_folder(root).files["z.png"] == (1, 2**63 - 1)
