"""Tars that are no output of img2dataset: nothing is extracted, nothing runs for ever, what is left out is counted."""

import io
import pathlib
import tarfile

import pytest

from cbalign.data.datasets.official.cc3m import Cc3m
from cbalign.data.datasets.official.miniature import pair_files, pair_tar
from cbalign.data.datasets.official.official_files import OfficialFiles
from tests.fire.fuzzing import files_below


def contents(folder):
    """What the builder of cc3m reads in a folder."""
    return Cc3m.read(None, OfficialFiles(folder))


def add(archive, name, data=b"", **changes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in changes.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    return tmp_path / "data"


def pair(archive, folder, number, prefix=""):
    for name, data in pair_files(number, folder.parent).items():
        add(archive, prefix + name, data)


def test_names_that_lead_elsewhere_write_nothing(folder):
    with tarfile.open(folder / "train" / "0.tar", "w") as archive:
        for number, prefix in enumerate(("../../", "/tmp/", "a/../../../", "~/", "\udce9/")):
            pair(archive, folder, number, prefix)
    before = files_below(folder.parent)
    found = contents(folder)
    rows = found.splits["train"].rows
    assert len(rows) == 5 and {image.path for row in rows for image in row.images} == {str(folder / "train" / "0.tar")}
    for row in rows:
        row.values[2].encode()
        assert row.images[0].read().startswith(b"\xff\xd8")
    assert files_below(folder.parent) == before


def test_links_and_devices_are_counted_and_not_followed(folder, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"mine")
    with tarfile.open(folder / "train" / "0.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            add(archive, f"{ord(kind)}.jpg", type=kind, linkname=str(tmp_path / "secret.jpg"))
        add(archive, "folder", type=tarfile.DIRTYPE)
        pair(archive, folder, 1)
    found = contents(folder)
    assert len(found.splits["train"].rows) == 1
    assert any("5 links and devices in tars" in note for note in found.notes), found.notes


def test_many_empty_members(folder):
    member = tarfile.TarInfo("0.jpg").tobuf()
    with (folder / "train" / "0.tar").open("wb") as file:
        file.write(member * 50_000 + bytes(1024))
    found = contents(folder)
    assert not found.splits["train"].rows
    assert sum(map(len, found.splits["train"].skipped.values())) == 1


def header(name, size):
    """A header with a size that need not be one, in the binary form that allows negative numbers."""
    block = bytearray(tarfile.TarInfo(name).tobuf())
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 2**88).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize("size", [-512, -1024, -(10**6), 2**40, 2**62, 2**80])
def test_sizes_that_are_none(folder, size):
    """At a negative size, Python up to 3.11.13 reads the same member for ever."""
    path = pair_tar(folder / "train", "0", [1])
    with path.open("rb") as file:
        start = file.read(512 * (-(-path.stat().st_size // 512)))
    length = len(start.rstrip(b"\0"))
    length = -(-length // 512) * 512
    for name in ("9.jpg", "9.txt", "x"):
        path.write_bytes(start[:length] + header(name, size) + bytes(1024))
        found = contents(folder)
        rows, notes = found.splits["train"].rows, found.notes
        assert rows[0].images[0].read().startswith(b"\xff\xd8")
        assert sum(image.size for row in rows for image in row.images) <= path.stat().st_size
        assert any("truncated or damaged" in note for note in notes), notes


def test_an_extended_header_with_a_negative_size(folder):
    path = folder / "train" / "0.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        pair(archive, folder, 1)
        add(archive, "9.jpg", b"x" * 700, pax_headers={"size": "-1024"})
    found = contents(folder)
    assert any("truncated or damaged" in note for note in found.notes), found.notes


def test_damage_in_the_middle_is_noted(folder):
    path = pair_tar(folder / "train", "0", [1, 2, 3])
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        place = archive.getmembers()[3].offset
    data[place : place + 300] = b"\xaa" * 300
    path.write_bytes(data)
    found = contents(folder)
    assert len(found.splits["train"].rows) == 1
    assert any(f"damaged at byte {place:,}" in note for note in found.notes), found.notes


def test_texts_of_any_length_are_cut(folder):
    with tarfile.open(folder / "train" / "0.tar", "w") as archive:
        add(archive, "1.jpg", pair_files(1, pathlib.Path(folder.parent))["000000001.jpg"])
        add(archive, "1.txt", b"word " * 10**6)
    (row,) = contents(folder).splits["train"].rows
    assert len(row.values[0][0]) <= 1 << 20
