"""Batches of records in memory: order, resuming, sharing among processes, texts, views, padding; all bit by bit."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import stats

tf = pytest.importorskip("tensorflow")

from cbalign.data import images as images_module
from cbalign.data import pipeline, sampling
from cbalign.data.augment import views
from cbalign.data.columns import Columns
from cbalign.data.image_files import to_png
from cbalign.data.records import records_in_memory
from cbalign.errors import UserError

VIEW = dict(image_size=16, scale=(0.2, 1.0))
COUNT = 23


def encoded(count, sizes=((40, 40),)):
    rng = np.random.default_rng(0)
    images = []
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        pixels = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((width, height), Image.BICUBIC)
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images


GROUPS = [number % 3 + 1 for number in range(COUNT)]
COLUMNS = Columns(
    np.array([[number, which, 0] for number, size in enumerate(GROUPS) for which in range(size)], np.int32),
    np.cumsum([0, *GROUPS], dtype=np.int64),
    {"id": np.arange(COUNT, dtype=np.int32) + 100},
)
"""Of record i: i % 3 + 1 captions, whose tokens are (i, which caption)."""


def make_records(images=None):
    """COUNT records with the captions of COLUMNS."""
    images = encoded(COUNT) if images is None else images
    return records_in_memory("captions", images, [["a"] * size for size in GROUPS])


@pytest.fixture(scope="module")
def records():
    return make_records()


def batches(records, count, columns=COLUMNS, **options):
    options = {"seed": 5, "global_batch": 6, "second_view": True, "rand_augment": False, **VIEW, **options}
    return list(itertools.islice(pipeline.train_batches(records, columns, **options), count))


def assert_same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def test_batch_layout(records):
    (batch,) = batches(records, 1)
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "image": (np.uint8, (6, 16, 16, 3)),
        "image_teacher": (np.uint8, (6, 16, 16, 3)),
        "text": (np.int32, (6, 3)),
        "id": (np.int32, (6,)),
        "index": (np.int32, (6,)),
        "replaced": (np.bool_, (6,)),
    }
    assert batch["index"].tolist() == list(range(6))
    assert "image_teacher" not in batches(records, 1, second_view=False)[0]


def test_epochs_visit_each_record_at_most_once(records):
    ids = np.stack([batch["id"] for batch in batches(records, 60)]).reshape(20, 18) - 100
    assert ids.min() >= 0 and ids.max() < COUNT
    assert all(len(set(epoch)) == 18 for epoch in ids.tolist())
    assert len({tuple(epoch) for epoch in ids.tolist()}) == 20
    assert set(ids.ravel()) == set(range(COUNT))


def orders(count, epochs, seed=3):
    def order_of(epoch):
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        return sampling.shuffled(tf.range(count, dtype=tf.int64), key, count)

    return tf.function(lambda: tf.map_fn(order_of, tf.range(epochs, dtype=tf.int64)))().numpy()


@pytest.mark.slow
def test_shuffle_is_uniform():
    drawn = orders(10, 1500)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(10), (1500, 1)))
    # A shuffle that tells few keys apart, or leaves neighbours together, fails here by many orders of magnitude.
    assert len(np.unique(drawn, axis=0)) > 1490
    for place in range(10):
        assert stats.chisquare(np.bincount(drawn[:, place], minlength=10)).pvalue > 1e-4
    neighbours = np.diff(drawn, axis=1) % 10
    assert stats.chisquare(np.bincount(neighbours.ravel(), minlength=10)[1:]).pvalue > 1e-4
    assert not np.array_equal(drawn[:5], orders(10, 5, seed=4))


@pytest.mark.parametrize("start", [1, 4, 7])
def test_stream_resumes_at_any_step(records, start):
    assert_same(batches(records, 9)[start:], batches(records, 9 - start, start_step=start))


@pytest.mark.parametrize("process_count", [2, 3])
def test_processes_share_the_batch(records, process_count):
    parts = [batches(records, 5, process_index=index, process_count=process_count) for index in range(process_count)]
    joined = [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts)]
    assert_same(joined, batches(records, 5))


def test_threads_and_prefetch_change_nothing(records):
    whole = batches(records, 5)
    assert_same(whole, batches(records, 5, threads=1, prefetch=1))
    assert_same(whole, batches(records, 5, threads=4, prefetch=3))


def test_everything_switched_on_resumes_and_is_shared(records):
    whole = batches(records, 4, rand_augment=True)
    part = batches(records, 2, rand_augment=True, start_step=2, process_index=1, process_count=2, threads=2)
    assert_same([{key: value[3:] for key, value in batch.items()} for batch in whole[2:]], part)


@pytest.mark.slow
def test_decoding_each_time_or_once_is_the_same(monkeypatch):
    once = make_records()
    arrays = make_records(np.stack([views.decode(image).numpy() for image in encoded(COUNT)]))
    assert once.images.decoded and arrays.images.decoded
    monkeypatch.setattr(images_module, "DECODED_LIMIT", COUNT * 40 * 40 * 3 - 1)
    each = make_records()
    assert not each.images.decoded
    assert_same(batches(once, 4), batches(each, 4))
    assert_same(batches(once, 4), batches(arrays, 4))
    options = {"image_size": 12, "batch_size": 8}
    for one, other in zip(pipeline.eval_batches(once, **options), pipeline.eval_batches(each, **options), strict=True):
        np.testing.assert_array_equal(one[0]["image"], other[0]["image"])


def test_images_of_several_sizes_too(monkeypatch):
    once, each = (make_records(encoded(COUNT, sizes=((20, 20), (31, 18)))) for _ in range(2))
    assert once.images.decoded
    monkeypatch.setattr(images_module, "DECODED_LIMIT", 1)
    assert not each.images.decoded
    assert_same(batches(once, 4), batches(each, 4))


def test_views_and_seeds_differ(records):
    stream = batches(records, 12)
    views = {}
    for batch in stream:
        for number, one, other in zip(batch["id"], batch["image"], batch["image_teacher"]):
            views.setdefault(number, []).extend([one.tobytes(), other.tobytes()])
    assert all(len(set(group)) == len(group) for group in views.values())
    assert max(len(group) for group in views.values()) >= 6
    other = batches(records, 12, seed=6)
    assert not np.array_equal([b["id"] for b in stream], [b["id"] for b in other])


def test_the_first_view_does_not_depend_on_the_second(records):
    single = batches(records, 3, second_view=False)
    for one, both in zip(single, batches(records, 3)):
        np.testing.assert_array_equal(one["image"], both["image"])


def test_identical_images_get_independent_views():
    same = make_records(encoded(1) * COUNT)
    images = [image.tobytes() for batch in batches(same, 6) for image in batch["image"]]
    assert len(set(images)) == len(images)


def test_captions_belong_to_the_record_and_are_drawn_uniformly(records):
    stream = batches(records, 300, second_view=False)
    rows, ids = (np.concatenate([batch[key] for batch in stream]) for key in ("text", "id"))
    np.testing.assert_array_equal(rows[:, 0], ids - 100)
    for captions in (1, 2, 3):
        drawn = rows[rows[:, 0] % 3 + 1 == captions, 1]
        counts = np.bincount(drawn, minlength=captions)
        assert len(counts) == captions
        assert captions == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_steps_and_user_mistakes(records):
    assert pipeline.steps_per_epoch(23, 6) == 3 and pipeline.steps_per_epoch(23, 23) == 1
    with pytest.raises(UserError, match="global batch of 24 does not fit 23 records"):
        batches(records, 1, global_batch=24)
    with pytest.raises(UserError, match="among 4 processes"):
        batches(records, 1, process_count=4)


@pytest.mark.parametrize("batch_size", [5, 23, 40])
def test_eval_batches(records, batch_size):
    results = list(pipeline.eval_batches(records, COLUMNS, image_size=12, batch_size=batch_size))
    assert all(batch["image"].shape == (batch_size, 12, 12, 3) for batch, _ in results)
    assert all(batch["image"].dtype == np.uint8 and batch["text"].dtype == np.int32 for batch, _ in results)
    assert [valid for _, valid in results[:-1]] == [batch_size] * (len(results) - 1)
    kept = {name: np.concatenate([batch[name][:valid] for batch, valid in results]) for name in results[0][0]}
    assert kept.keys() == {"image", "text", "id"}
    reference = [Image.open(io.BytesIO(data)).resize((12, 12), Image.BICUBIC) for data in encoded(COUNT)]
    assert len(kept["image"]) == COUNT
    assert np.abs(kept["image"].astype(float) - np.stack([np.asarray(image) for image in reference])).mean() < 0.5
    # The first caption of each record.
    np.testing.assert_array_equal(kept["text"], [[number, 0, 0] for number in range(COUNT)])
    np.testing.assert_array_equal(kept["id"], np.arange(COUNT) + 100)
    batch, valid = results[-1]
    for rows in batch.values():
        assert (rows[valid:] == rows[valid - 1]).all()


def test_some_records_are_evaluated_in_the_order_asked_for(records):
    whole = next(pipeline.eval_batches(records, image_size=12, batch_size=COUNT))[0]["image"]
    chosen = list(pipeline.eval_batches(records, COLUMNS, image_size=12, batch_size=3, rows=[7, 2, 2, 19]))
    assert [valid for _, valid in chosen] == [3, 1]
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch, _ in chosen]), whole[[7, 2, 2, 19, 19, 19]])
    assert chosen[0][0]["id"].tolist() == [107, 102, 102]


def shades(count):
    """2 * count images of one shade each: 5 i."""
    images = [np.full((16, 16, 3), 5 * shade, np.uint8) for shade in range(2 * count)]
    return [to_png(Image.fromarray(image)) for image in images]


@pytest.fixture(scope="module")
def pairs():
    """Twelve records of two images each; record i shows shades 10 i and 10 i + 5."""
    images = shades(12)
    return records_in_memory("image_pairs", list(zip(images[::2], images[1::2])), [[f"a{i}"] for i in range(12)])


PAIR_COLUMNS = Columns(np.arange(12, dtype=np.int16)[:, None], None, {"label": np.arange(12, dtype=np.int32) % 2})


def test_columns_belong_to_the_record_and_an_epoch_sees_each_once(pairs):
    seen = []
    options = {"second_view": False, "global_batch": 4, "scale": (1.0, 1.0), "flip": False}
    for batch in batches(pairs, 6, PAIR_COLUMNS, **options):
        assert batch.keys() == {"image", "image_second", "text", "label", "index", "replaced"}
        number = batch["text"][:, 0]
        assert batch["text"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], 10 * number)
        np.testing.assert_array_equal(batch["image_second"][:, 0, 0, 0], 10 * number + 5)
        np.testing.assert_array_equal(batch["label"], number % 2)
        np.testing.assert_array_equal(batch["index"], np.arange(4))
        seen += number.tolist()
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]


def test_the_views_of_two_images_are_independent():
    """Both images of each record are the same image here, so that only the draws can differ."""
    (image,) = encoded(1)
    same = records_in_memory("image_pairs", [(image, image)] * COUNT, [["a"]] * COUNT)
    columns = Columns(np.zeros((COUNT, 3), np.int32))
    names = ("image", "image_teacher", "image_second", "image_second_teacher")
    drawn = [[row.tobytes() for name in names for row in batch[name]] for batch in batches(same, 3, columns)]
    assert all(len(set(images)) == len(images) == 4 * 6 for images in drawn)
    single = batches(records_in_memory("captions", [image] * COUNT, [["a"]] * COUNT), 1, columns, second_view=False)[0]
    np.testing.assert_array_equal(single["image"], batches(same, 1, columns)[0]["image"])


def test_two_images_are_evaluated(pairs):
    results = list(pipeline.eval_batches(pairs, PAIR_COLUMNS, image_size=16, batch_size=5))
    assert [valid for _, valid in results] == [5, 5, 2]
    for side, name in enumerate(("image", "image_second")):
        shown = np.concatenate([batch[name][:valid, 0, 0, 0] for batch, valid in results])
        np.testing.assert_array_equal(shown, 10 * np.arange(12) + 5 * side)
    assert results[-1][0]["text"][:, 0].tolist() == [10, 11, 11, 11, 11]
    assert results[-1][0]["label"].tolist() == [0, 1, 1, 1, 1]


def test_equal_images_are_held_once():
    images = encoded(2, sizes=((20, 20), (31, 18)))
    records = records_in_memory("questions", [images[i] for i in (0, 1, 0, 0, 1)], [["a"]] * 5)
    assert records.image_ids.tolist() == [[0], [1], [0], [0], [1]] and records.image_count == 2
    shown = next(pipeline.eval_batches(records, image_size=12, batch_size=5))[0]["image"]
    np.testing.assert_array_equal(shown, shown[[0, 1, 0, 0, 1]])
    assert not np.array_equal(shown[0], shown[1])
    assert [records.image(i) for i in range(5)] == [images[i] for i in (0, 1, 0, 0, 1)]


def test_wordless_texts_are_never_drawn(records):
    """Of record 2, which has three captions, the last one alone has words; record 0 has none."""
    wordless = np.zeros(len(COLUMNS.text), bool)
    wordless[[0, 3, 4]] = True
    columns = Columns(COLUMNS.text, COLUMNS.text_offsets, COLUMNS.arrays, wordless)
    assert columns.silent == 1
    with pytest.raises(UserError, match="1 of 23 records have no caption"):
        batches(records, 1, columns)
    stream = batches(records, 30, columns, max_bad_share=0.05, second_view=False)
    rows = np.concatenate([batch["text"] for batch in stream])
    assert (rows[rows[:, 0] == 2, 1] == 2).all() and 2 in rows[:, 0] and 0 not in rows[:, 0]
    assert sum(batch["replaced"].sum() for batch in stream) > 3
