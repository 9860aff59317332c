"""Writing in shards: what is finished stays after an interruption, and the outcome is the same."""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from cbalign.cli import data as data_command
from cbalign.data.datasets.official import shards
from cbalign.data.datasets.official.accounts import built_lines
from cbalign.data.datasets.catalogue import find_builder, prepare
from cbalign.errors import UserError
from tests.data.datasets import miniature as mini

COUNT = 24


@pytest.fixture
def manual(tmp_path):
    """A folder of `COUNT` pairs of one size, and a broken image and one without a text among them."""
    folder = tmp_path / "manual"
    mini.pair_folder(folder, "00000", range(COUNT))
    broken = folder / "00000" / "000000005.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    (folder / "00000" / "000000007.txt").write_text(" ")
    return folder


def build(manual, data, **options):
    builder = find_builder("sbu", str(data))
    # About three images a shard.
    size = (manual / "00000" / "000000002.jpg").stat().st_size
    report = shards.build(builder, builder.contents(manual), shard_bytes=3 * size, **options)
    return pathlib.Path(builder.data_path), report


def records(folder):
    """Images as stored, and the rest, by id."""
    skip = {"image": tfds.decode.SkipDecoding()}
    read = tfds.builder_from_directory(folder).as_dataset(split="train", decoders=skip)
    return {int(record["id"]): record for record in tfds.as_numpy(read)}


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.is_file()}


def test_shards_hold_all_and_the_report_the_rest(manual, tmp_path):
    folder, report = build(manual, tmp_path / "data", workers=2)
    found = sorted(path.name for path in folder.glob("*.tfrecord*"))
    count = report["shards"]
    assert found == [f"sbu-train.tfrecord-{n:05d}-of-{count:05d}" for n in range(count)] and count in (8, 9)
    assert report["splits"] == {"train": COUNT - 2}
    assert report["left_out"]["train"]["no text"] == ["00000/000000007"]
    assert [name[-13:] for name in report["left_out"]["train"]["broken"]] == ["000000005.jpg"]
    assert set(os.listdir(folder)) == {*found, "dataset_info.json", "features.json", "build_report.json"}
    assert not folder.with_name("1.0.0.incomplete").exists()
    assert sorted(records(folder)) == [n for n in range(COUNT) if n not in (5, 7)]
    assert "left out: broken" in "\n".join(built_lines(find_builder("sbu", str(tmp_path / "data"))))


def test_shards_of_about_the_size_asked_for(manual, tmp_path):
    folder, _ = build(manual, tmp_path / "data")
    sizes = [path.stat().st_size for path in folder.glob("*.tfrecord*")]
    # Records hold some text beside the image, and one shard lacks an image.
    assert max(sizes) < 1.6 * min(sizes)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_goes_on(manual, tmp_path, monkeypatch, workers):
    whole, _ = build(manual, tmp_path / "whole")
    written = []
    original = shards._write

    def interrupted(features, folder, shard, **more):
        if len(written) >= 3:
            raise KeyboardInterrupt
        original(features, folder, shard, **more)
        # The other of two threads leaves its shard unfinished.
        if shards._sign(folder, shard).exists():
            written.append(shard.file)

    monkeypatch.setattr(shards, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(manual, tmp_path / "data", workers=workers)
    incomplete = find_builder("sbu", str(tmp_path / "data")).data_path
    incomplete = pathlib.Path(incomplete).with_name("1.0.0.incomplete")
    before = {name: (incomplete / name).stat().st_mtime_ns for name in written}

    again = []

    def counted(features, folder, shard, **more):
        again.append(shard.file)
        original(features, folder, shard, **more)

    monkeypatch.setattr(shards, "_write", counted)
    folder, report = build(manual, tmp_path / "data", workers=workers)
    assert len(written) >= 3 and not set(again) & set(written) and len(again) + len(written) == report["shards"]
    assert {name: (folder / name).stat().st_mtime_ns for name in written} == before
    assert files(folder) == files(whole)


def test_other_files_than_before_start_anew(manual, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "_describe", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(manual, tmp_path / "data")
    monkeypatch.undo()
    (manual / "00000" / "000000011.txt").write_text("another caption")
    folder, _ = build(manual, tmp_path / "data")
    assert "starting anew" in capsys.readouterr().out
    captions = [record["captions"][0] for record in records(folder).values()]
    assert captions.count(b"another caption") == 1 and len(captions) == COUNT - 2


def test_images_of_other_formats_become_jpeg_and_the_rest_stays(manual, tmp_path):
    data = mini.image(manual / "00000" / "000000000.jpg", 0, kind="WEBP")
    kept = mini.image(manual / "00000" / "000000001.jpg", 1, kind="PNG")
    folder, _ = build(manual, tmp_path / "data")
    images = {number: record["image"] for number, record in records(folder).items()}
    assert images[1] == kept and images[0] != data and images[0][:2] == b"\xff\xd8"
    assert images[2] == (manual / "00000" / "000000002.jpg").read_bytes()


def test_nothing_usable_is_one_clear_line(manual, tmp_path):
    for path in (manual / "00000").glob("*.jpg"):
        path.write_bytes(b"not an image")
    with pytest.raises(UserError, match="no image of sbu, split train, can be decoded"):
        build(manual, tmp_path / "data")


def test_no_room_is_told_before_writing(manual, tmp_path, monkeypatch):
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: argparse.Namespace(free=1000))
    with pytest.raises(UserError, match="GB free and the images take"):
        build(manual, tmp_path / "data")


def command(*words):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args([str(word) for word in words]))


def test_the_command_prints_counts_against_the_published(manual, tmp_path, capsys):
    (manual / "00000" / "000000007.txt").write_text("pair 7")
    command("build", "sbu", f"--manual-dir={manual}", f"--data-dir={tmp_path / 'data'}", "--workers=1")
    out = capsys.readouterr().out
    assert "train                  23 records  warning: 1,000,000 are published (-999,977)" in out
    folder = tmp_path / "data" / "sbu" / "1.0.0"
    assert f"in {folder}" in out and (folder / "sbu-train.index.npz").is_file()
    command("build", "sbu", f"--manual-dir={manual}", f"--data-dir={tmp_path / 'data'}")
    assert "is built already" in capsys.readouterr().out


@pytest.mark.parametrize("words, message", [
    (["build", "scenes/tiny", "--manual-dir=M"], "takes no --manual-dir"),
    (["build", "sbu", "--manual-dir=M", "--workers=0"], "--workers=0"),
    (["build", "sbu", "--manual-dir=nowhere"], "manual folder nowhere does not exist"),
    (["build", "sbu", "--manual-dir=gs://bucket/sbu"], "is no local folder"),
    (["build", "sbu", "--manual-dir=M", "--data-dir=/proc/none"], "cannot write to /proc/none"),
])
def test_mistakes_are_named(manual, tmp_path, words, message):
    words = [word.replace("=M", f"={manual}") for word in words]
    if not any(word.startswith("--data-dir") for word in words):
        words.append(f"--data-dir={tmp_path / 'data'}")
    with pytest.raises(UserError, match=message):
        command(*words)


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path):
    """SIGKILL while shards are being written; the second run writes only what is lacking."""
    manual, data = tmp_path / "manual", tmp_path / "data"
    mini.pair_folder(manual, "00000", range(400))
    code = (
        "import sys, time; from cbalign.data.sources import shards, catalogue\n"
        "write = shards._write\n"
        "def slow(*a, **k):\n    time.sleep(0.2); write(*a, **k); sys.stdout.write('shard\\n'); sys.stdout.flush()\n"
        "shards._write = slow\n"
        "b = catalogue.find_builder('sbu', sys.argv[2])\n"
        "shards.build(b, b.contents(sys.argv[1]), shard_bytes=20_000, workers=2)\n"
    )
    arguments = [sys.executable, "-c", code, str(manual), str(data)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            assert process.stdout.readline() == "shard\n"
        process.send_signal(signal.SIGKILL)
    incomplete = data / "sbu" / "1.0.0.incomplete"
    shard_count = json.loads((incomplete / "plan.json").read_text())["shards"]
    signed = len(list(incomplete.glob("*-of-*.json")))
    assert 4 <= signed < shard_count
    out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert f"{signed} of {shard_count} shards are there" in out and out.count("shard\n") == shard_count - signed
    builder = prepare("sbu", str(data))
    assert sorted(records(builder.data_path)) == list(range(400))
