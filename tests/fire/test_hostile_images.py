"""Images of a few bytes that claim up to 100,000 x 100,000 pixels, in a process that may take 1 GiB of memory."""

import os
import struct
import subprocess
import sys
import zlib

import pytest

from cbalign.data.image_files import BadImage, load_rgb
from cbalign.data.stored_images import decoded_size, stored_bytes

SIDE = 100_000


def png(side=SIDE):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    # A megabyte of zeros in a kilobyte, as in a bomb.
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def bmp():
    return (
        b"BM"
        + struct.pack("<IHHI", 1000, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, *[0] * 6)
        + bytes(99)
    )


def gif():
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"


def jpeg():
    frame = struct.pack(">BHHB", 8, 65535, 65535, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def tiff():
    entries = (
        (256, SIDE),
        (257, SIDE),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, SIDE),
        (279, 10**10 % 2**32),
    )
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4)


def webp():
    header = bytes(4) + (16383 * 6).to_bytes(3, "little") + (16383 * 6).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", len(header)) + header
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def pgm():
    return f"P5 {SIDE} {SIDE} 255\n".encode()


BOMBS = {"png": png, "bmp": bmp, "gif": gif, "jpg": jpeg, "tif": tiff, "webp": webp, "pgm": pgm}


@pytest.mark.parametrize("kind", BOMBS)
def test_they_are_refused(kind, tmp_path):
    data = BOMBS[kind]()
    (tmp_path / f"a.{kind}").write_bytes(data)
    for refuse, source in (
        (load_rgb, data),
        (load_rgb, tmp_path / f"a.{kind}"),
        (decoded_size, data),
        (stored_bytes, data),
    ):
        with pytest.raises(BadImage, match="^(broken|too large)$"):
            refuse(source)


def test_they_are_refused_within_a_gigabyte(tmp_path):
    for kind, make in BOMBS.items():
        (tmp_path / f"a.{kind}").write_bytes(make())
    # Just within the limit of pixels by its header, and far beyond the memory.
    (tmp_path / "b.png").write_bytes(png(16_000))
    code = (
        "import pathlib, resource, sys\n"
        "from cbalign.data.image_files import BadImage, load_rgb\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        load_rgb(path)\n"
        "    except BadImage as error:\n"
        "        print(path.name, error)\n"
    )
    # One thread: each would reserve memory of its own.
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    refused = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(refused) == {*(f"a.{kind}" for kind in BOMBS), "b.png"}, refused
    assert refused["a.png"] == refused["a.bmp"] == "too large" and refused["b.png"] == "broken"
