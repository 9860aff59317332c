"""Writing shards: an interrupted build keeps its complete shards, and resuming it gives the same files."""

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
from cbalign.data.datasets.catalogue import find_builder, prepare
from cbalign.data.datasets.official import miniature as mini
from cbalign.data.datasets.official import shard_writer
from cbalign.data.datasets.official.build_report import built_lines
from cbalign.errors import UserError

COUNT = 24


@pytest.fixture
def manual(tmp_path):
    """A folder of `COUNT` pairs of one size, among them a broken image and one without text."""
    folder = tmp_path / "manual"
    mini.pair_folder(folder, "00000", range(COUNT))
    broken = folder / "00000" / "000000005.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    (folder / "00000" / "000000007.txt").write_text(" ")
    return folder


def build(manual, data, **options):
    builder = find_builder("sbu", str(data))
    # About three images per shard.
    size = (manual / "00000" / "000000002.jpg").stat().st_size
    report = shard_writer.write_shards(builder, builder.contents(manual), shard_bytes=3 * size, **options)
    return pathlib.Path(builder.data_path), report


def records(folder):
    """{id: record}, images as stored."""
    skip = {"image": tfds.decode.SkipDecoding()}
    read = tfds.builder_from_directory(folder).as_dataset(split="train", decoders=skip)
    return {int(record["id"]): record for record in tfds.as_numpy(read)}


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.is_file()}


def test_shards_hold_the_usable_records_and_the_report_names_the_others(manual, tmp_path):
    folder, report = build(manual, tmp_path / "data", workers=2)
    found = sorted(path.name for path in folder.glob("*.tfrecord*"))
    count = report["shards"]
    assert found == [f"sbu-train.tfrecord-{n:05d}-of-{count:05d}" for n in range(count)] and count in (8, 9)
    assert report["splits"] == {"train": COUNT - 2}
    assert report["skipped"]["train"]["no text"] == ["00000/000000007"]
    assert [name[-13:] for name in report["skipped"]["train"]["broken"]] == ["000000005.jpg"]
    assert set(os.listdir(folder)) == {*found, "dataset_info.json", "features.json", "build_report.json"}
    assert not folder.with_name("1.0.0.incomplete").exists()
    assert sorted(records(folder)) == [n for n in range(COUNT) if n not in (5, 7)]
    assert "skipped: broken" in "\n".join(built_lines(find_builder("sbu", str(tmp_path / "data"))))


def test_shards_are_of_about_the_requested_size(manual, tmp_path):
    folder, _ = build(manual, tmp_path / "data")
    sizes = [path.stat().st_size for path in folder.glob("*.tfrecord*")]
    # Records contain some text besides the image, and one shard lacks an image.
    assert max(sizes) < 1.6 * min(sizes)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_resumes(manual, tmp_path, monkeypatch, workers):
    whole, _ = build(manual, tmp_path / "whole")
    written = []
    original = shard_writer._write

    def interrupted(features, folder, shard, **more):
        if len(written) >= 3:
            raise KeyboardInterrupt
        original(features, folder, shard, **more)
        # The other one of two threads leaves its shard unfinished.
        if shard_writer._completion_file(folder, shard).exists():
            written.append(shard.file)

    monkeypatch.setattr(shard_writer, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(manual, tmp_path / "data", workers=workers)
    incomplete = find_builder("sbu", str(tmp_path / "data")).data_path
    incomplete = pathlib.Path(incomplete).with_name("1.0.0.incomplete")
    before = {name: (incomplete / name).stat().st_mtime_ns for name in written}

    again = []

    def counted(features, folder, shard, **more):
        again.append(shard.file)
        original(features, folder, shard, **more)

    monkeypatch.setattr(shard_writer, "_write", counted)
    folder, report = build(manual, tmp_path / "data", workers=workers)
    assert len(written) >= 3 and not set(again) & set(written) and len(again) + len(written) == report["shards"]
    assert {name: (folder / name).stat().st_mtime_ns for name in written} == before
    assert files(folder) == files(whole)


def test_a_build_of_changed_files_starts_over(manual, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_writer, "_write_metadata", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(manual, tmp_path / "data")
    monkeypatch.undo()
    (manual / "00000" / "000000011.txt").write_text("another caption")
    folder, _ = build(manual, tmp_path / "data")
    assert "starting over" in capsys.readouterr().out
    captions = [record["captions"][0] for record in records(folder).values()]
    assert captions.count(b"another caption") == 1 and len(captions) == COUNT - 2


def test_images_of_other_formats_become_jpeg_and_others_stay(manual, tmp_path):
    data = mini.write_image(manual / "00000" / "000000000.jpg", 0, kind="WEBP")
    kept = mini.write_image(manual / "00000" / "000000001.jpg", 1, kind="PNG")
    folder, _ = build(manual, tmp_path / "data")
    images = {number: record["image"] for number, record in records(folder).items()}
    assert images[1] == kept and images[0] != data and images[0][:2] == b"\xff\xd8"
    assert images[2] == (manual / "00000" / "000000002.jpg").read_bytes()


def test_an_unusable_split_is_an_error(manual, tmp_path):
    for path in (manual / "00000").glob("*.jpg"):
        path.write_bytes(b"not an image")
    with pytest.raises(UserError, match="no image of sbu, split train, can be decoded"):
        build(manual, tmp_path / "data")


def test_missing_space_is_an_error_before_writing(manual, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer.shutil, "disk_usage", lambda _: argparse.Namespace(free=1000))
    with pytest.raises(UserError, match="GB free and the images take"):
        build(manual, tmp_path / "data")


def command(*words):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args([str(word) for word in words]))


def test_the_command_compares_counts_with_the_published_ones(manual, tmp_path, capsys):
    (manual / "00000" / "000000007.txt").write_text("pair 7")
    command("build", "sbu", f"--manual-dir={manual}", f"--data-dir={tmp_path / 'data'}", "--workers=1")
    out = capsys.readouterr().out
    assert "train                  23 records  warning: 1,000,000 are published (-999,977)" in out
    folder = tmp_path / "data" / "sbu" / "1.0.0"
    assert f"in {folder}" in out and (folder / "sbu-train.index.npz").is_file()
    command("build", "sbu", f"--manual-dir={manual}", f"--data-dir={tmp_path / 'data'}")
    assert "has already been built" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["build", "scenes/tiny", "--manual-dir=M"], "takes no --manual-dir"),
        (["build", "sbu", "--manual-dir=M", "--workers=0"], "--workers=0"),
        (["build", "sbu", "--manual-dir=nowhere"], "--manual-dir=nowhere does not exist"),
        (["build", "sbu", "--manual-dir=gs://bucket/sbu"], "is not a local folder"),
        (["build", "sbu", "--manual-dir=M", "--data-dir=/proc/none"], "cannot write to /proc/none"),
    ],
)
def test_mistakes_are_named(manual, tmp_path, words, message):
    words = [word.replace("=M", f"={manual}") for word in words]
    if not any(word.startswith("--data-dir") for word in words):
        words.append(f"--data-dir={tmp_path / 'data'}")
    with pytest.raises(UserError, match=message):
        command(*words)


@pytest.mark.slow
def test_a_killed_build_resumes(tmp_path):
    """SIGKILL while shards are being written; the second run writes only the missing ones."""
    manual, data = tmp_path / "manual", tmp_path / "data"
    mini.pair_folder(manual, "00000", range(400))
    code = (
        "import sys, time\n"
        "from cbalign.data.datasets import catalogue\n"
        "from cbalign.data.datasets.official import shard_writer\n"
        "write = shard_writer._write\n"
        "def slow(*a, **k):\n    time.sleep(0.2); write(*a, **k); sys.stdout.write('shard\\n'); sys.stdout.flush()\n"
        "shard_writer._write = slow\n"
        "b = catalogue.find_builder('sbu', sys.argv[2])\n"
        "shard_writer.write_shards(b, b.contents(sys.argv[1]), shard_bytes=20_000, workers=2)\n"
    )
    arguments = [sys.executable, "-c", code, str(manual), str(data)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            assert process.stdout.readline() == "shard\n"
        process.send_signal(signal.SIGKILL)
    incomplete = data / "sbu" / "1.0.0.incomplete"
    shard_count = json.loads((incomplete / "plan.json").read_text())["shards"]
    complete = len(list(incomplete.glob("*-of-*.json")))
    assert 4 <= complete < shard_count
    out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert f"{complete} of {shard_count} shards are complete" in out and out.count("shard\n") == shard_count - complete
    builder = prepare("sbu", str(data))
    assert sorted(records(builder.data_path)) == list(range(400))
