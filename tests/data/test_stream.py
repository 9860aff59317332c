"""Streams from records on disk: order over shards, processes, resuming, mixtures, bad records, for every kind."""

import io
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

tf = pytest.importorskip("tensorflow")

from cbalign.data import mixtures, pipeline, records, sampling
from cbalign.data.columns import text_columns
from cbalign.data.datasets.schema import KINDS
from cbalign.errors import UserError
from tests.data import stored_sets

ROOT = pathlib.Path(__file__).parents[2]
COUNT = 24
FIRST_NUMBER = 8
"""Token id of the word "0" in the tests' vocabulary."""

# The kinds share one pipeline: the quick tests read captions alone.
EACH_KIND = [pytest.param(kind, marks=() if kind == "captions" else pytest.mark.slow) for kind in stored_sets.MAKERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return stored_sets.tokenizer(folder)


@pytest.fixture(scope="module")
def alpha(folder):
    return stored_sets.write(
        folder,
        "alpha",
        {
            "train": [stored_sets.record(number) for number in range(COUNT)],
            "val": [stored_sets.record(number) for number in range(5)],
        },
    )


@pytest.fixture(scope="module")
def beta(folder):
    numbers = range(100, 116)
    return stored_sets.write(
        folder,
        "beta",
        {"train": [{**stored_sets.record(number), "id": number - 100 + 1000} for number in numbers]},
        shards=2,
    )


def opened(name, tokenizer, split="train", *, kind="captions", memory=False):
    """(records, columns) of a split, read from disk however small it is."""
    with pytest.MonkeyPatch.context() as patch:
        if not memory:
            patch.setattr(records, "MEMORY_LIMIT", 0)
        source = records.open_records(kind, name, split)
    return source, text_columns(source, tokenizer, max_length=6)


def batches(source, count, **options):
    options = {"seed": 5, "global_batch": 6, "image_size": 8, "scale": (0.2, 1.0), "rand_augment": False, **options}
    return list(itertools.islice(pipeline.train_batches(*source, threads=2, **options), count))


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


@pytest.mark.parametrize("kind", EACH_KIND)
def test_from_disk_and_from_memory_are_the_same(folder, tokenizer, kind):
    """With images of several sizes and kinds of JPEG."""
    made = [
        stored_sets.MAKERS[kind](
            n,
            *(stored_sets.jpeg(n + side, 30 + n, 41 - n, subsampling=n % 3) for side in range(len(KINDS[kind].images))),
        )
        for n in range(10)
    ]
    name = stored_sets.write(folder, f"mixed_{kind}", {"train": made}, kind=kind, shards=1)
    options = {"global_batch": 5, "second_view": True, "rand_augment": True, "color": (0.8, 0.2, 0.5)}
    memory, stored = (opened(name, tokenizer, kind=kind, memory=memory) for memory in (True, False))
    assert stored[0].stored and not memory[0].stored and memory[0].images.decoded and not stored[0].images.decoded
    assert_same(batches(memory, 3, **options), batches(stored, 3, **options))
    for one, other in zip(
        *(pipeline.eval_batches(*s, image_size=8, batch_size=4) for s in (memory, stored)), strict=True
    ):
        assert_same([one[0]], [other[0]])
        assert one[1] == other[1]


@pytest.mark.parametrize("kind", EACH_KIND)
@pytest.mark.parametrize("memory", [True, False])
def test_every_kind_resumes_and_is_shared_among_processes(folder, tokenizer, kind, memory):
    """Also of a mixture; and each record has its own label, text and images."""
    make = stored_sets.MAKERS[kind]
    names = [
        stored_sets.write(
            folder, f"{part}_{kind}_{memory}", {"train": [make(n) for n in range(start, start + 8)]}, kind=kind
        )
        for part, start in (("first", 0), ("second", 40))
    ]
    source = opened("+".join([names[0], f"{names[1]}*0.5"]), tokenizer, kind=kind, memory=memory)
    options = {"global_batch": 4, "rand_augment": True}
    whole = batches(source, 9, **options)
    assert_same(whole[4:], batches(source, 5, start_step=4, **options))
    halves = [batches(source, 9, process_index=i, process_count=2, **options) for i in (0, 1)]
    assert_same(whole, joined(halves))
    drawn = np.array([numbers(batch) for batch in whole]).reshape(3, 12)
    for epoch in drawn:
        assert sorted(epoch[epoch < 40]) == list(range(8)) and len(set(epoch)) == 12
    assert {number for number in drawn[:2].ravel() if number >= 40} == set(range(40, 48))
    for batch in whole:
        assert batch["index"].tolist() == list(range(4)) and not batch["replaced"].any()
        if "label" in batch:
            assert batch["label"].tolist() == [make(number)["label"] for number in numbers(batch)]


def whole_image(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((8, 8), Image.Resampling.BICUBIC), float)


BROKEN = {"truncated": lambda data: data[: len(data) // 2], "empty": lambda data: b"", "no image": lambda data: b"text"}


@pytest.mark.parametrize("memory", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize(
    "kind, side",
    [
        ("captions", 0),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("questions", 0), ("image_pairs", 0), ("image_pairs", 1), ("entailment", 0))
        ),
    ],
)
def test_bad_records_are_replaced(folder, tokenizer, kind, side, memory):
    """A record is bad if one of its images is: another record stands there, whole, with its own text and label."""
    make, features = stored_sets.MAKERS[kind], KINDS[kind].images
    made = [make(number, *(stored_sets.jpeg(90 * s + number) for s in range(len(features)))) for number in range(24)]
    good = [[whole_image(record[feature]) for feature in features] for record in made]
    bad = dict(zip((3, 10, 17), BROKEN.values()))
    for number, damage in bad.items():
        made[number][features[side]] = damage(made[number][features[side]])
    name = stored_sets.write(folder, f"bad_{kind}_{side}_{memory}", {"train": made}, kind=kind)
    source = opened(name, tokenizer, kind=kind, memory=memory)
    options = {"scale": (1.0, 1.0), "flip": False, "max_bad_share": 0.05}
    stream = batches(source, 12, **options)
    for start in (0, 4, 8):
        epoch = stream[start : start + 4]
        own = [number for batch in epoch for number, other in zip(numbers(batch), batch["replaced"]) if not other]
        assert sorted(own) == sorted(set(range(24)) - bad.keys())
        assert sum(batch["replaced"].sum() for batch in epoch) == 3
    for batch in stream:
        assert not set(numbers(batch)) & bad.keys()
        for row, number in enumerate(numbers(batch)):
            for expected, image in zip(good[number], ("image", "image_second")):
                # A crop of the whole area may still cut a little off the longer side.
                assert np.abs(batch[image][row] - expected).mean() < 16
            if "label" in batch:
                assert batch["label"][row] == made[number]["label"]
    assert_same(stream[7:], batches(source, 5, start_step=7, **options))
    halves = [batches(source, 5, process_index=i, process_count=2, **options) for i in (0, 1)]
    assert_same(stream[:5], joined(halves))
    with pytest.raises(UserError, match=r"had bad records, which is more than data.max_bad_share=0.001"):
        batches(source, 8, **options | {"max_bad_share": 0.001})


def test_a_set_of_bad_records_alone_is_given_up(folder, tokenizer):
    made = [stored_sets.pair(number, stored_sets.jpeg(number), b"") for number in range(12)]
    source = opened(
        stored_sets.write(folder, "hopeless", {"train": made}, kind="image_pairs"), tokenizer, kind="image_pairs"
    )
    with pytest.raises(UserError, match="a record and the 15 that could replace it are bad"):
        batches(source, 1, max_bad_share=1.0)


@pytest.mark.parametrize("memory", [True, False])
def test_unreadable_pairs_are_grey_in_evaluation(folder, tokenizer, memory):
    made = [stored_sets.pair(number) for number in range(10)]
    made[4]["image_right"] = b"no image"
    name = stored_sets.write(folder, f"grey_{memory}", {"train": made}, kind="image_pairs")
    source = opened(name, tokenizer, kind="image_pairs", memory=memory)
    results = list(pipeline.eval_batches(*source, image_size=8, batch_size=4, max_bad_share=0.1))
    for image in ("image", "image_second"):
        shown = np.concatenate([batch[image][:valid] for batch, valid in results])
        assert [bool((row == 128).all()) for row in shown] == [number == 4 for number in range(10)]
    texts = np.concatenate([batch["text"][:valid] for batch, valid in results])
    np.testing.assert_array_equal(texts, source[1].text)
    with pytest.raises(UserError, match="1 of the first 8 records have images that cannot be read"):
        list(pipeline.eval_batches(*source, image_size=8, batch_size=4, max_bad_share=0.09))


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


@pytest.mark.parametrize("process_count", [1, pytest.param(2, marks=pytest.mark.slow)])
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
    """How often each record was drawn: one dictionary number -> times an epoch, and ids by number."""
    source = opened(name, tokenizer)
    assert source[0].epoch_size % batch == 0
    steps = source[0].epoch_size // batch
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


@pytest.mark.parametrize(
    "name, sources",
    [
        ("scenes/tiny", [("scenes/tiny", 1.0)]),
        ("a+b*0.5", [("a", 1.0), ("b", 0.5)]),
        (" a *2 + b ", [("a", 2.0), ("b", 1.0)]),
    ],
)
def test_mixtures_are_read(name, sources):
    assert mixtures.parse_mixture(name) == sources


@pytest.mark.parametrize("name", ["a+", "a*0", "a*x+b", "a*-1", "*2", "a+b+a*0.5", "a*inf", "a*nan"])
def test_mistaken_mixtures_are_refused(name):
    with pytest.raises(UserError, match="data "):
        mixtures.parse_mixture(name)


def test_a_folder_may_be_named_like_a_mixture(tmp_path):
    (tmp_path / "a+b").mkdir()
    assert mixtures.parse_mixture(str(tmp_path / "a+b")) == [(str(tmp_path / "a+b"), 1.0)]


LEFT_EARLY = """
import numpy as np
from cbalign.data import pipeline
from cbalign.data.columns import Columns
from cbalign.data.records import records_in_memory
n = 64
records = records_in_memory("captions", np.zeros((n, 600, 600, 3), np.uint8), [["one"]] * n)
columns = Columns(np.zeros((n, 6), np.int32))
options = dict(global_batch=16, image_size=256, scale=(0.5, 1.0), second_view=True)
for seed in range(5):
    stream = pipeline.train_batches(records, columns, seed=seed, **options)
    next(stream)
    stream = pipeline.eval_batches(records, image_size=256, batch_size=8)
    next(stream)
stream = pipeline.train_batches(records, columns, seed=9, **options)
print(next(stream)["image"].shape)
"""


@pytest.mark.slow
def test_a_stream_may_be_left_at_any_moment():
    """What is under way in other threads needs Python's lock, also while a stream is freed, or at the program's end."""
    done = subprocess.run([sys.executable, "-c", LEFT_EARLY], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "(16, 256, 256, 3)\n", done.stderr
