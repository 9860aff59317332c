"""The index of a split: what it holds, when it is written and when again, and which damage it reports."""

import pathlib

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from cbalign.data import split_index
from cbalign.data.datasets import catalogue
from cbalign.data.datasets.schema import KINDS
from cbalign.errors import UserError
from tests.data import stored_sets


@pytest.fixture
def scans(monkeypatch):
    """The shards that were read through."""
    read = []
    real = split_index._scan_shard
    monkeypatch.setattr(split_index, "_scan_shard", lambda *args: read.append(args[0]) or real(*args))
    return read


def values(column):
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


@pytest.mark.parametrize("kind", stored_sets.MAKERS)
def test_small_features_of_every_kind(tmp_path, kind):
    made = [stored_sets.MAKERS[kind](number) for number in range(7)]
    builder = catalogue.prepare(stored_sets.write(tmp_path, "set", {"train": made, "val": made[:2]}, kind=kind))
    split_index.write_indices(builder)
    small = set(KINDS[kind].features) - set(KINDS[kind].images)
    for split, expected in (("train", made), ("train[2:5]", made[2:5]), ("train[5:]+val", made[5:] + made[:2])):
        index = split_index.load_index(builder, split)
        assert len(index) == len(expected) and set(index.columns) == small
        for name in small:
            assert values(index.columns[name]) == [record[name] for record in expected]


def test_odd_texts(tmp_path):
    captions = [["Ünïcode café", "", "zwei"], [], [" x\n"]]
    records = [stored_sets.record(number, captions=texts) for number, texts in enumerate(captions)]
    # A record that lacks its features, as an empty one does.
    name = stored_sets.write(tmp_path, "odd", {"train": [*records, b""]}, shards=2)
    index = split_index.load_index(catalogue.prepare(name), "train")
    assert list(index.columns["captions"]) == [*captions, []] and index.columns["captions"][1:] == [[], [" x\n"], []]
    assert index.columns["id"].tolist() == [1000, 1001, 1002, -1] and index.columns["name"][-1] == ""
    assert index.columns["captions"][-2] == [" x\n"]
    with pytest.raises(IndexError):
        index.columns["name"][4]


def test_large_numbers_are_exact(tmp_path):
    numbers = [2**62 + 1, -(2**62) - 1, 2**53 + 1]
    made = [{**stored_sets.question(0), "question_id": number} for number in numbers]
    name = stored_sets.write(tmp_path, "large", {"train": made}, kind="questions", shards=1)
    assert split_index.load_index(catalogue.prepare(name), "train").columns["question_id"].tolist() == numbers


def test_index_is_written_once_and_again_for_other_shards(tmp_path, scans):
    name = stored_sets.write(tmp_path, "gamma", {"train": [stored_sets.record(n) for n in range(6)]}, shards=2)
    builder = catalogue.prepare(name)
    (path,) = split_index.write_indices(builder)
    assert path.name == "gamma-train.index.npz"
    scans.clear()
    first = split_index.load_index(builder, "train")
    assert not scans and first.columns["id"].tolist() == list(range(1000, 1006))
    shard = pathlib.Path(first.files[0])
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for number in (9, 8, 7):
            writer.write(stored_sets.serialized(stored_sets.record(number, captions=["another one"])))
    second = split_index.load_index(builder, "train")
    assert len(scans) == 2 and second.columns["id"].tolist() == [1009, 1008, 1007, 1003, 1004, 1005]
    assert second.fingerprint != first.fingerprint
    path.write_bytes(path.read_bytes()[:-300])
    assert split_index.load_index(builder, "train").fingerprint == second.fingerprint and len(scans) == 4
    split_index.load_index(builder, "train")
    assert len(scans) == 4 and [file.name for file in pathlib.Path(name).glob("*index*")] == [path.name]


def test_index_of_the_older_format_is_rebuilt(tmp_path, scans):
    """Format 1 had the arrays of captions and ids at the top, and no other features."""
    name = stored_sets.write(tmp_path, "old", {"train": [stored_sets.record(n) for n in range(6)]}, shards=2)
    builder = catalogue.prepare(name)
    (path,) = split_index.write_indices(builder)
    with np.load(path) as arrays:
        sizes, lengths, offsets = (arrays[field] for field in ("shard_bytes", "shard_lengths", "offsets"))
    np.savez(
        path,
        offsets=offsets,
        ids=np.zeros(6, np.int64),
        caption_offsets=np.zeros(7, np.int64),
        shard_bytes=sizes,
        text=np.zeros(0, np.uint8),
        text_offsets=np.zeros(1, np.int64),
        shard_lengths=lengths,
        format=1,
        fingerprint="f",
    )
    scans.clear()
    for _ in range(2):
        index = split_index.load_index(builder, "train")
        assert index.columns["id"].tolist() == list(range(1000, 1006))
        assert list(index.columns["name"]) == [f"r{number}" for number in range(6)]
    assert len(scans) == 2  # one for each shard, at the first of the two


def test_folders_that_cannot_be_written(tmp_path, scans, monkeypatch, capsys):
    name = stored_sets.write(tmp_path, "fixed", {"train": [stored_sets.record(n) for n in range(4)]}, shards=1)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(split_index, "write_atomically", refuse)
    builder = catalogue.prepare(name)
    assert len(split_index.load_index(builder, "train")) == len(split_index.load_index(builder, "train")) == 4
    assert len(scans) == 2 and "cannot be written (Permission denied): train is read through" in capsys.readouterr().out
    with pytest.raises(UserError, match="make its folder writable"):
        split_index.write_indices(builder)


def test_missing_and_damaged_shards_are_named(tmp_path):
    name = stored_sets.write(tmp_path, "delta", {"train": [stored_sets.record(n) for n in range(6)]}, shards=2)
    builder = catalogue.prepare(name)
    shard = pathlib.Path(name) / "delta-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(UserError, match="00001-of-00002 is damaged"):
        split_index.load_index(builder, "train")
    with tf.io.TFRecordWriter(str(shard)) as writer:
        writer.write(stored_sets.serialized(stored_sets.record(1)))
    with pytest.raises(UserError, match="00001-of-00002 holds 1 records instead of 3"):
        split_index.write_indices(builder)
    shard.unlink()
    with pytest.raises(UserError, match="00001-of-00002 is missing"):
        split_index.load_index(builder, "train")
