"""Streams from records on disk: order over shards, processes, resuming, mixtures, the index and the cached captions."""

import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from cbalign.data import split_index
from cbalign.data import sampling
from cbalign.data import pipeline
from cbalign.data import records
from cbalign.data import text  # noqa: E402
from cbalign.data.datasets import catalogue  # noqa: E402
from cbalign.errors import UserError  # noqa: E402
from tests.data import stored_sets  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
COUNT = 24
FIRST_NUMBER = 8
"""Token id of the word "0" in the tests' vocabulary."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return stored_sets.tokenizer(folder)


@pytest.fixture(scope="module")
def alpha(folder):
    return stored_sets.write(folder, "alpha", {
        "train": [stored_sets.record(number) for number in range(COUNT)],
        "val": [stored_sets.record(number) for number in range(5)],
    })


@pytest.fixture(scope="module")
def beta(folder):
    numbers = range(100, 116)
    return stored_sets.write(folder, "beta", {"train": [
        {**stored_sets.record(number), "id": number - 100 + 1000} for number in numbers
    ]}, shards=2)


def opened(name, tokenizer, split="train", **options):
    """The records of a split read from disk, however small it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MEMORY_LIMIT", 0)
        return records.open_split(name, split, **options).encode(tokenizer, max_length=6)


def batches(source, count, **options):
    options = {"seed": 5, "global_batch": 6, "image_size": 8, "scale": (0.2, 1.0), "rand_augment": False, **options}
    return list(itertools.islice(pipeline.train_batches(source, threads=2, **options), count))


def numbers(batch):
    """The number of the record of each row, as its caption tells it."""
    return [next(token - FIRST_NUMBER for token in row if token >= FIRST_NUMBER) for row in batch["text"].tolist()]


def assert_same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other):
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


def joined(parts):
    return [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts)]


def test_from_disk_and_from_memory_are_the_same(folder, tokenizer):
    mixed = [stored_sets.record(n, stored_sets.jpeg(n, 30 + n, 41 - n, subsampling=n % 3)) for n in range(10)]
    name = stored_sets.write(folder, "mixed", {"train": mixed}, shards=1)
    options = {"global_batch": 5, "second_view": True, "rand_augment": True, "color": (0.8, 0.2, 0.5)}
    memory = records.open_split(name, "train").encode(tokenizer, max_length=6)
    stored = opened(name, tokenizer)
    assert stored.stored and not memory.stored and memory.decoded and not stored.decoded
    assert_same(batches(memory, 3, **options), batches(stored, 3, **options))
    assert [stored.images[3], stored.names[4], stored.captions[5]] == [mixed[3]["image"], "r4", mixed[5]["captions"]]
    assert stored.ids.tolist() == memory.ids.tolist() and len(stored) == stored.epoch_size == 10
    for one, other in zip(*(pipeline.eval_images(r, image_size=8, batch_size=4) for r in (memory, stored)), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]


@pytest.mark.parametrize("process_count", [1, 2, 3])
def test_each_record_once_an_epoch_in_an_order_of_its_own(alpha, tokenizer, process_count):
    source = opened(alpha, tokenizer)
    parts = [batches(source, 12, process_index=i, process_count=process_count) for i in range(process_count)]
    whole = joined(parts)
    drawn = np.array([numbers(batch) for batch in whole])
    epochs = drawn.reshape(3, COUNT)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(COUNT), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    # Eight records to a shard: no batch comes from one alone.
    assert all(len({number // 8 for number in batch}) > 1 for batch in drawn.tolist())
    np.testing.assert_array_equal(np.concatenate([batch["id"] for batch in whole]), drawn.ravel() + 1000)
    if process_count > 1:
        assert_same(whole, batches(source, 12))


@pytest.mark.parametrize("process_count", [1, 2])
def test_resumed_stream_is_the_uninterrupted_one(alpha, beta, tokenizer, process_count):
    source = opened(f"{alpha}+{beta}*0.75", tokenizer)
    for index in range(process_count):
        options = {"process_index": index, "process_count": process_count, "second_view": True}
        whole = batches(source, 9, **options)
        assert_same(whole[7:], batches(source, 2, start_step=7, **options))


def test_other_seeds_give_other_orders(alpha, tokenizer):
    source = opened(alpha, tokenizer)
    assert [numbers(b) for b in batches(source, 4)] != [numbers(b) for b in batches(source, 4, seed=6)]


def drawn_of(name, tokenizer, epochs, batch=6):
    """How often each record was drawn: one dictionary number → times an epoch, and ids by number."""
    source = opened(name, tokenizer)
    assert source.epoch_size % batch == 0
    steps = source.epoch_size // batch
    stream, ids = batches(source, epochs * steps, global_batch=batch), {}
    counts = []
    for start in range(0, len(stream), steps):
        epoch = [number for step in stream[start : start + steps] for number in numbers(step)]
        counts.append({number: epoch.count(number) for number in sorted(set(epoch))})
    for step in stream:
        ids.update(zip(numbers(step), step["id"].tolist()))
    return counts, ids


def test_a_weight_of_a_half_takes_the_other_half_next_time(alpha, beta, tokenizer):
    counts, ids = drawn_of(f"{alpha}+{beta}*0.5", tokenizer, 4, batch=8)
    for epoch in counts:
        assert {number for number in epoch if number < COUNT} == set(range(COUNT))
        assert set(epoch.values()) == {1} and len(epoch) == COUNT + 8
    halves = [frozenset(number for number in epoch if number >= 100) for epoch in counts]
    for first, second in ((0, 1), (2, 3)):
        assert halves[first] | halves[second] == set(range(100, 116))
    assert halves[0] not in halves[2:]
    # Both sources count their ids from 1000.
    assert len(set(ids.values())) == len(ids) == COUNT + 16


def test_weights_above_one_repeat(alpha, beta, tokenizer):
    counts, _ = drawn_of(f"{alpha}*0.25+{beta}*2", tokenizer, 4, batch=19)
    for epoch in counts:
        assert all(times == (2 if number >= 100 else 1) for number, times in epoch.items()) and len(epoch) == 22
    assert {number for epoch in counts for number in epoch} == {*range(COUNT), *range(100, 116)}
    counts, _ = drawn_of(f"{beta}*1.5", tokenizer, 2, batch=8)
    assert all(sorted(epoch.values()) == [1] * 8 + [2] * 8 for epoch in counts)
    assert all(sum(epoch[number] for epoch in counts) == 3 for number in range(100, 116))


def test_parts_that_do_not_divide_still_see_all():
    """Three sevenths of ten records: passes are complete, whatever the cuts between epochs."""
    parts = (sampling.Part(0, 7, 7), sampling.Part.weighted(7, 10, 0.43))
    assert parts[1].per_epoch == 4

    def epoch_of(number):
        return sampling.records_at(tf.range(11, dtype=tf.int64), number, seed=3, parts=parts)

    epochs = tf.function(lambda: tf.map_fn(epoch_of, tf.range(20, dtype=tf.int64)))().numpy()
    assert all(sorted(epoch[epoch < 7]) == list(range(7)) for epoch in epochs)
    # Within an epoch the source's records are shuffled among the others, so that passes are told apart by counting.
    seen = np.array([np.bincount(epochs[:last][epochs[:last] >= 7] - 7, minlength=10) for last in range(1, 21)])
    assert (seen.max(axis=1) - seen.min(axis=1) <= 1).all() and (seen[-1] == 8).all()


@pytest.mark.parametrize("name, sources", [
    ("scenes/tiny", [("scenes/tiny", 1.0)]), ("a+b*0.5", [("a", 1.0), ("b", 0.5)]), (" a *2 + b ", [("a", 2.0), ("b", 1.0)]),
])
def test_mixtures_are_read(name, sources):
    assert sampling.parse_mixture(name) == sources


@pytest.mark.parametrize("name", ["a+", "a*0", "a*x+b", "a*-1", "*2", "a+b+a*0.5", "a*inf", "a*nan"])
def test_mistaken_mixtures_are_refused(name):
    with pytest.raises(UserError, match="data "):
        sampling.parse_mixture(name)


def test_a_folder_may_be_named_like_a_mixture(tmp_path):
    (tmp_path / "a+b").mkdir()
    assert sampling.parse_mixture(str(tmp_path / "a+b")) == [(str(tmp_path / "a+b"), 1.0)]


def test_sources_without_the_split_are_left_out_of_evaluation(alpha, beta, tokenizer):
    source = opened(f"{alpha}+{beta}", tokenizer, "val", missing="skip")
    assert len(source) == 5
    with pytest.raises(UserError, match="has no split val"):
        opened(f"{alpha}+{beta}", tokenizer, "val")
    with pytest.raises(UserError, match="has no split nothing"):
        opened(f"{alpha}+{beta}", tokenizer, "nothing", missing="skip")


@pytest.mark.parametrize("split, expected", [
    ("train[5:19]", range(5, 19)), ("train[:50%]", range(12)), ("train[20:]+val", [20, 21, 22, 23, 0, 1, 2, 3, 4]),
])
def test_slices(alpha, tokenizer, split, expected):
    source = opened(alpha, tokenizer, split)
    expected = list(expected)
    assert [source.captions[i][0] for i in range(len(source))] == [f"image {number} here" for number in expected]
    assert source.ids.tolist() == [number + 1000 for number in expected]
    assert [source.images[i] for i in range(len(source))] == [stored_sets.jpeg(number) for number in expected]
    rows = source.token_ids[source.caption_offsets[:-1], 2]
    np.testing.assert_array_equal(rows - FIRST_NUMBER, expected)


def test_index_is_written_once_and_again_for_other_shards(folder, tokenizer, monkeypatch):
    name = stored_sets.write(folder, "gamma", {"train": [stored_sets.record(n) for n in range(6)]}, shards=2)
    builder = catalogue.prepare(name)
    path, = split_index.write_offsets(builder)
    assert path.name == "gamma-train.index.npz"
    scans = []
    monkeypatch.setattr(split_index, "_scan_shard", lambda *a, real=split_index._scan_shard: scans.append(a[0]) or real(*a))
    first = split_index.load_index(builder, "train")
    assert not scans and first.ids.tolist() == list(range(1000, 1006))
    shard = pathlib.Path(first.files[0])
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for number in (9, 8, 7):
            writer.write(stored_sets.serialized(stored_sets.record(number, captions=["another one"])))
    second = split_index.load_index(builder, "train")
    assert len(scans) == 2 and second.ids.tolist() == [1009, 1008, 1007, 1003, 1004, 1005]
    assert second.fingerprint != first.fingerprint
    path.write_bytes(path.read_bytes()[:-300])
    assert split_index.load_index(builder, "train").fingerprint == second.fingerprint and len(scans) == 4


def test_missing_and_damaged_shards_are_named(folder):
    name = stored_sets.write(folder, "delta", {"train": [stored_sets.record(n) for n in range(6)]}, shards=2)
    builder = catalogue.prepare(name)
    shard = pathlib.Path(name) / "delta-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(UserError, match="00001-of-00002 is damaged"):
        split_index.load_index(builder, "train")
    with tf.io.TFRecordWriter(str(shard)) as writer:
        writer.write(stored_sets.serialized(stored_sets.record(1)))
    with pytest.raises(UserError, match="00001-of-00002 holds 1 records instead of 3"):
        split_index.write_offsets(builder)
    shard.unlink()
    with pytest.raises(UserError, match="00001-of-00002 is missing"):
        split_index.load_index(builder, "train")


def test_captions_are_encoded_once(alpha, tokenizer, monkeypatch):
    first = opened(alpha, tokenizer)
    expected = text.encode(tokenizer, [c for group in first.captions for c in group], max_length=6)
    np.testing.assert_array_equal(first.token_ids, expected)
    assert first.token_ids.dtype == np.int16
    calls = []
    monkeypatch.setattr(text, "encode", lambda *a, real=text.encode, **k: calls.append(k) or real(*a, **k))
    np.testing.assert_array_equal(opened(alpha, tokenizer).token_ids, expected)
    assert not calls
    other = records.open_split(f"{alpha}*2", "train").encode(tokenizer, max_length=4)
    assert other.token_ids.shape[1] == 4 and len(calls) == 1


def test_ids_that_do_not_fit_are_numbered_anew(folder, tokenizer):
    wide = [{**stored_sets.record(n), "id": 2**40 + n // 2} for n in range(6)]
    source = opened(stored_sets.write(folder, "wide", {"train": wide}, shards=1), tokenizer)
    assert source.ids.tolist() == [0, 0, 1, 1, 2, 2] and source.ids.dtype == np.int32


LEFT_EARLY = """
import numpy as np
from cbalign.data import pipeline
n = 64
records = pipeline.Records(np.zeros((n, 600, 600, 3), np.uint8), np.zeros((n, 6), np.int32), np.arange(n + 1),
                           [["one"]] * n, np.arange(n, dtype=np.int32), [str(i) for i in range(n)])
options = dict(global_batch=16, image_size=256, scale=(0.5, 1.0), second_view=True)
for seed in range(5):
    stream = pipeline.train_batches(records, seed=seed, **options)
    next(stream)
    stream = pipeline.eval_images(records, image_size=256, batch_size=8)
    next(stream)
stream = pipeline.train_batches(records, seed=9, **options)
print(next(stream)["image"].shape)
"""


def test_a_stream_may_be_left_at_any_moment():
    """What is under way in other threads needs Python's lock, also while a stream is freed, or at the program's end."""
    done = subprocess.run([sys.executable, "-c", LEFT_EARLY], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "(16, 256, 256, 3)\n", done.stderr
