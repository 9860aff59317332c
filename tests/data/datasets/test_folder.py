"""Import of a folder: every caption format, every kind of image, every kind of mistake."""

import argparse
import csv
import fcntl
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cbalign.cli import data as data_command
from cbalign.data.datasets.folder import REPORT, import_folder
from cbalign.data.datasets.image_finder import ImageFinder
from cbalign.data.image_files import BadImage, encode_file
from cbalign.data.records import open_records
from cbalign.errors import UserError
from tests.data.datasets.reading import read_split

PAIRS = [("a.png", "a red dog"), ("b.png", "a blue cat"), ("a.png", "the dog, again"), ("sub/c.png", "a green bird")]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.png", "sub/c.png")):
        Image.new("RGB", (20, 10), (80 * index, 0, 255)).save(folder / name)
    return folder


def write_csv(path, rows, header=("image", "caption"), delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header, *rows])
    return path


def captions_of(folder, split="train"):
    read = read_split(str(folder), split)
    return dict(zip(read["names"], read["captions"]))


def decode(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


def write_captions(kind, folder):
    path = folder / f"captions.{kind.split()[0]}"
    objects = [{"image": image, "caption": caption} for image, caption in PAIRS]
    if kind in ("csv", "tsv"):
        return write_csv(path, PAIRS, delimiter="," if kind == "csv" else "\t")
    if kind == "csv bom":
        write_csv(path, PAIRS, header=("Title", "FileName")[::-1])
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        return path
    if kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(one) for one in objects) + "\n")
    elif kind == "json":
        path.write_text(json.dumps(objects))
    else:
        path.write_text(
            json.dumps([{"image": "/x/y/a.png", "caption": ["a red dog", "the dog, again"]}, *objects[1:2], objects[3]])
        )
    return path


@pytest.mark.parametrize("kind", ["csv", "csv bom", "tsv", "jsonl", "json", "json lists"])
def test_every_caption_format(photos, tmp_path, kind):
    report = import_folder(photos, write_captions(kind, tmp_path), tmp_path / "out", test=0)
    assert captions_of(tmp_path / "out") == {
        "a.png": ["a red dog", "the dog, again"],
        "b.png": ["a blue cat"],
        "sub/c.png": ["a green bird"],
    }
    assert report["rows"] == 4 and report["images"] == 3 and report["skipped"] == {}
    assert json.loads((tmp_path / "out" / REPORT).read_text()) == report


def test_result_is_plain_tfds(photos, tmp_path):
    import_folder(photos, write_csv(tmp_path / "c.csv", PAIRS), tmp_path / "my-photos 2", test=0)
    builder = tfds.builder_from_directory(tmp_path / "my-photos 2")
    assert builder.name == "my_photos_2" and builder.info.splits["train"].num_examples == 3
    records = {record["name"].decode(): record for record in tfds.as_numpy(builder.as_dataset(split="train"))}
    np.testing.assert_array_equal(records["b.png"]["image"], np.full((10, 20, 3), (80, 0, 255), np.uint8))
    assert (tmp_path / "my-photos 2").stat().st_mode & 0o777 == 0o755


def test_large_images_are_reduced(photos, tmp_path):
    Image.linear_gradient("L").resize((1200, 600)).save(photos / "big.jpg")
    import_folder(photos, write_csv(tmp_path / "c.csv", [("big.jpg", "grey")]), tmp_path / "out", test=0, max_side=300)
    image = Image.open(io.BytesIO(read_split(str(tmp_path / "out"), "train")["images"][0]))
    assert image.format == "JPEG" and image.mode == "RGB" and image.size == (300, 150)


def test_common_captions_share_an_id_and_a_split(photos, tmp_path):
    for index in range(60):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(photos / f"{index}.png")
    # 0-1-2 are linked through 1, 10 and 11 by case and spacing only.
    rows = [(f"{index}.png", f"image {index}") for index in range(60)]
    rows += [("0.png", "first"), ("1.png", "first"), ("1.png", "second"), ("2.png", "second")]
    rows += [("10.png", "A  Tree"), ("11.png", "a tree ")]
    report = import_folder(photos, write_csv(tmp_path / "c.csv", rows), tmp_path / "out", val=0.2, test=0.3, seed=3)
    assert report["splits"] == {"train": 30, "val": 12, "test": 18} and report["ids"] == 57
    where, ids = {}, {}
    for split in report["splits"]:
        read = read_split(str(tmp_path / "out"), split)
        where.update(dict.fromkeys(read["names"], split))
        ids.update(zip(read["names"], read["ids"].tolist()))
    assert len(where) == 60
    assert len({ids[f"{index}.png"] for index in (0, 1, 2)}) == len({ids["10.png"], ids["11.png"]}) == 1
    assert len({where[f"{index}.png"] for index in (0, 1, 2)}) == len({where["10.png"], where["11.png"]}) == 1
    again = import_folder(photos, tmp_path / "c.csv", tmp_path / "again", val=0.2, test=0.3, seed=3)
    assert again == report
    for split in report["splits"]:
        assert read_split(str(tmp_path / "again"), split)["names"] == read_split(str(tmp_path / "out"), split)["names"]


def split_of_each(folder, report):
    """{name: (split, id)}."""
    found = {}
    for split in report["splits"]:
        read = read_split(str(folder), split)
        found.update({name: (split, number) for name, number in zip(read["names"], read["ids"].tolist())})
    return found


@pytest.fixture
def twenty(tmp_path):
    folder = tmp_path / "twenty"
    folder.mkdir()
    for index in range(20):
        Image.new("RGB", (8, 8), (index * 10, 0, 0)).save(folder / f"{index}.png")
    return folder


def test_copies_stay_together(twenty, tmp_path):
    """Half of the images a second time, in other formats and with other metadata."""
    for index in range(10):
        Image.open(twenty / f"{index}.png").save(
            twenty / f"copy{index}.{('png', 'bmp', 'webp')[index % 3]}", lossless=True
        )
    names = sorted(path.name for path in twenty.iterdir())
    file = write_csv(tmp_path / "c.csv", [(name, f"caption of {name}") for name in names])
    for seed in range(3):
        report = import_folder(twenty, file, tmp_path / f"out{seed}", test=0.4, seed=seed)
        assert report["images"] == 30 and report["ids"] == 20 and report["shared"]["copies"] == 10
        placed = split_of_each(tmp_path / f"out{seed}", report)
        for name in names:
            original = name.removeprefix("copy").partition(".")[0] + ".png"
            assert placed[name] == placed[original]
        assert any("10 of 30 images are copies" in note for note in report["notes"])
        assert report["splits"]["test"] == 12


def test_a_caption_that_all_share_joins_none(twenty, tmp_path):
    rows = [(f"{index}.png", "a photo") for index in range(20)]
    report = import_folder(twenty, write_csv(tmp_path / "c.csv", rows), tmp_path / "out", test=0.25)
    assert report["ids"] == 20 and report["splits"] == {"train": 15, "test": 5}
    assert "'a photo', by 20" in report["notes"][0] and "--joint-captions" in report["notes"][0]
    report = import_folder(twenty, tmp_path / "c.csv", tmp_path / "joint", test=0.25, joint_captions=True)
    assert report["ids"] == 1 and report["splits"] == {"train": 20}
    assert "test has 0 of the 5 images asked for" in report["notes"][1] and "largest id has 20" in report["notes"][1]


def test_missing_captions_join_none(twenty, tmp_path):
    values = ["nan", "None", "", "NULL", "a cat", "a dog"]
    rows = [(f"{index}.png", values[index % 6]) for index in range(20)]
    report = import_folder(twenty, write_csv(tmp_path / "c.csv", rows), tmp_path / "out", test=0, max_bad=0.8)
    assert report["images"] == 6 and {name: e["rows"] for name, e in report["skipped"].items()} == {
        "caption is null": 11,
        "empty caption": 3,
    }
    assert "1.png (None)" in report["skipped"]["caption is null"]["files"]


def test_repeated_captions_of_one_image_are_kept_once(photos, tmp_path):
    rows = [("a.png", "One"), ("a.png", " one "), ("./a.png", "two"), (str(photos / "a.png"), "TWO")]
    import_folder(photos, write_csv(tmp_path / "c.csv", rows), tmp_path / "out", test=0)
    assert captions_of(tmp_path / "out") == {"a.png": ["One", "two"]}


def test_paths_of_someone_else(photos):
    (photos / "other").mkdir()
    Image.new("RGB", (4, 4)).save(photos / "other" / "c.png")
    finder = ImageFinder(photos)
    assert finder.find("/export/home/x/photos/sub/c.png") == photos / "sub" / "c.png"
    assert finder.find("C:\\data\\other\\c.png") == photos / "other" / "c.png"
    assert finder.find("elsewhere/b.png") == photos / "b.png"
    assert finder.find("b") == photos / "b.png"
    for name in ("elsewhere/c.png", "nothing.png", "", "sub", "/", "a\0.png", "x" * 5000):
        assert finder.find(name) is None


def bomb(path):
    """A PNG of 60,000 x 60,000 black pixels by its header; Pillow needs the start of some data to open it."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(999)))]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def damage(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>404 Not Found</html>")
    bomb(folder / "bomb.png")
    return {
        "truncated.jpg": "broken",
        "zero.jpg": "empty file",
        "page.jpg": "broken",
        "bomb.png": "too large",
        "gone.jpg": "missing",
    }


def test_bad_images_are_counted_and_skipped(photos, tmp_path):
    reasons = damage(photos)
    rows = [*PAIRS, *((name, f"about {name}") for name in reasons), ("b.png", "  "), ("", "no image")]
    report = import_folder(photos, write_csv(tmp_path / "c.csv", rows), tmp_path / "out", test=0, max_bad=0.7)
    assert report["skipped"] == {
        "broken": {"rows": 2, "files": report["skipped"]["broken"]["files"]},
        "empty caption": {"rows": 1, "files": ["b.png"]},
        "empty file": {"rows": 1, "files": ["zero.jpg"]},
        "missing": {"rows": 1, "files": ["gone.jpg"]},
        "no image named": {"rows": 1, "files": ["no image"]},
        "too large": {"rows": 1, "files": ["bomb.png"]},
    }
    assert set(report["skipped"]["broken"]["files"]) == {"truncated.jpg", "page.jpg"}
    assert report["skipped_rows"] == 7 and sorted(captions_of(tmp_path / "out")) == ["a.png", "b.png", "sub/c.png"]


@pytest.mark.parametrize("bad", ["gone.jpg", "truncated.jpg"])
def test_too_many_bad_rows_leave_nothing_behind(photos, tmp_path, bad):
    damage(photos)
    file = write_csv(tmp_path / "c.csv", [*PAIRS, (bad, "x")])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=f"1 of 5 rows .*{bad}.*--max-bad=0.1"):
        import_folder(photos, file, tmp_path / "out", max_bad=0.1)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(UserError, match="no row with a caption and a readable image"):
        import_folder(photos, write_csv(tmp_path / "c.csv", [(bad, "x")]), tmp_path / "out", max_bad=1)
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_killed_import_left_is_removed_and_what_another_one_writes_is_not(photos, tmp_path):
    abandoned, at_work = tmp_path / ".out.importing-a1b2c3d4", tmp_path / ".out.importing-e5f6g7h8"
    others = [tmp_path / name for name in (".out", ".out.backup12", ".output.importing-a1b2c3d4", "xout.importing-a")]
    for folder in (abandoned, at_work, *others):
        (folder / "records").mkdir(parents=True)
    lock = os.open(at_work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    captions = write_csv(tmp_path / "captions.csv", PAIRS)
    import_folder(photos, captions, tmp_path / "out", test=0)
    assert not abandoned.exists()
    assert all((folder / "records").exists() for folder in (at_work, *others))
    # A finished import holds its lock no longer.
    fcntl.flock(os.open(tmp_path / "out", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)
    import_folder(photos, captions, tmp_path / "out2", test=0)
    assert at_work.exists()  # of another target
    (tmp_path / "out").rename(tmp_path / "out1")
    import_folder(photos, captions, tmp_path / "out", test=0)
    assert not at_work.exists()


def test_file_limit_is_an_option(photos):
    with pytest.raises(BadImage, match="too large"):
        encode_file(photos / "a.png", 512, max_pixels=199)
    assert encode_file(photos / "a.png", 512, max_pixels=200)


def save_modes(folder):
    """Saves one image of each difficult kind; returns name -> (pixel at the top left, tolerance, size)."""
    flat = Image.new("RGB", (16, 8), (200, 40, 40))
    Image.fromarray(np.full((8, 16), 65535 // 2, np.uint16)).save(folder / "16bit.png")
    flat.convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    frames = [Image.new("RGB", (16, 8), color) for color in ("red", "blue", "lime")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    palette = flat.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(folder / "palette.png", transparency=palette.getpixel((0, 0)))
    Image.new("RGBA", (16, 8), (0, 0, 0, 0)).save(folder / "clear.png")
    Image.new("LA", (16, 8), (0, 128)).save(folder / "half.png")
    Image.new("1", (16, 8), 1).save(folder / "bits.png")
    Image.fromarray(np.full((8, 16), 0.5, np.float32)).save(folder / "float.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6
    upside = Image.new("RGB", (160, 80), "blue")
    upside.paste("red", (0, 0, 80, 80))
    upside.save(folder / "turned.jpg", exif=exif, quality=100)
    flat.save(folder / "webp.webp", lossless=True)
    return {
        "16bit.png": ((127, 127, 127), 1, (16, 8)),
        "cmyk.jpg": ((200, 40, 40), 4, (16, 8)),
        "animated.gif": ((255, 0, 0), 0, (16, 8)),
        "palette.png": ((255, 255, 255), 0, (16, 8)),
        "clear.png": ((255, 255, 255), 0, (16, 8)),
        "half.png": ((127, 127, 127), 1, (16, 8)),
        "bits.png": ((255, 255, 255), 0, (16, 8)),
        "float.tiff": ((128, 128, 128), 1, (16, 8)),
        "turned.jpg": ((255, 0, 0), 4, (80, 160)),
        "webp.webp": ((200, 40, 40), 0, (16, 8)),
    }


def test_every_kind_of_image(photos):
    for name, (pixel, tolerance, size) in save_modes(photos).items():
        image = decode(encode_file(photos / name, 512, 10**6))
        assert image.shape == (size[1], size[0], 3), name
        assert np.abs(image[2, 2].astype(int) - pixel).max() <= tolerance, (name, image[2, 2])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("c.csv", "image,words\na.png,x\n", r"no column for the caption .*found 'image', 'words'"),
        ("c.tsv", "picture\tcaption\na.png\tx\n", r"no column for the image .*'picture', 'caption'"),
        ("c.csv", "", "found nothing"),
        ("c.jsonl", '{"image": "a.png", "caption": "x"}\n\n{"image": "b.png", "cap\n', "line 3: invalid JSON"),
        ("c.jsonl", '["a.png", "x"]\n', "line 1: expected an object"),
        ("c.jsonl", '{"image": "a.png"}\n', "line 1: no column for the caption"),
        ("c.json", '[{"image": "a.png", "caption": "x"},\n oops]', "line 2: invalid JSON"),
        ("c.json", '{"images": []}', "does not contain a JSON list"),
        ("c.json", '[{"image": "a.png", "caption": "x"}, {"image": 1}]', "record 2: no column"),
        ("c.csv", b"image,caption\na.png,\xff\xfe\n", "not UTF-8"),
        ("c.csv", "image,caption\n", "no row with a caption"),
        ("c.xlsx", "x", "has an unknown type"),
    ],
)
def test_malformed_caption_files(photos, tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        import_folder(photos, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("val, test", [(0.0, 1.0), (1.0, 0.0), (0.7, 0.3)])
def test_a_folder_for_evaluation_alone_has_no_training_split(photos, tmp_path, val, test):
    rows = [(f"{number}.png", f"caption {min(number, 7)}") for number in range(11)]
    for number, (name, _) in enumerate(rows):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(photos / name)
    report = import_folder(photos, write_csv(tmp_path / "c.csv", rows), tmp_path / "out", val=val, test=test)
    builder = tfds.builder_from_directory(tmp_path / "out")
    wanted = {split for split, share in (("val", val), ("test", test)) if share}
    assert set(builder.info.splits) == set(report["splits"]) == wanted
    assert sum(info.num_examples for info in builder.info.splits.values()) == report["images"] == len(rows)


def test_wrong_arguments(photos, tmp_path):
    file = write_csv(tmp_path / "c.csv", PAIRS)
    for options, message in [
        ({"test": 0.6, "val": 0.5}, "more than all images"),
        ({"test": -0.1}, "more than all"),
        ({"max_bad": 5}, "is not a share"),
        ({"max_side": 0}, "at least 1"),
        ({"name": "2x"}, "is not a valid name"),
    ]:
        with pytest.raises(UserError, match=message):
            import_folder(photos, file, tmp_path / "out", **options)
    with pytest.raises(UserError, match="image folder .* does not exist"):
        import_folder(tmp_path / "nowhere", file, tmp_path / "out")
    with pytest.raises(UserError, match="caption file .* does not exist"):
        import_folder(photos, tmp_path / "nowhere.csv", tmp_path / "out")
    with pytest.raises(UserError, match="exists and is not empty"):
        import_folder(photos, file, photos)
    with pytest.raises(UserError, match="cannot write to"):
        import_folder(photos, file, file / "out")
    (tmp_path / "empty").mkdir()
    assert import_folder(photos, file, tmp_path / "empty")["images"] == 3


def command(*words):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args(words))


def test_command(photos, tmp_path, capsys):
    file = write_csv(tmp_path / "c.csv", [*PAIRS, ("gone.png", "x")])
    words = ["import", f"--images={photos}", f"--captions={file}", f"--out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="1 of 5 rows"):
        command(*words)
    command(*words, "--max-bad=0.2", "--test=0.34")
    printed = capsys.readouterr().out
    assert "train" in printed and "2 images" in printed and "skipped 1 of 5 rows: missing" in printed
    command("build", str(tmp_path / "out"))
    assert "1 records" in capsys.readouterr().out
    with pytest.raises(UserError, match="emoji, scenes"):
        command("build", "nothing")
    with pytest.raises(UserError, match="has no split val: give one of test, train"):
        open_records("captions", str(tmp_path / "out"), "val")


def test_help_needs_no_tensorflow():
    program = "import sys, cbalign.cli.data; assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
