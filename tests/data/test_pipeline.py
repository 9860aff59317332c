"""The streams: order, resuming, sharing among processes, captions, padding; all bit by bit."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import stats

tf = pytest.importorskip("tensorflow")

from cbalign.data.augment import views
from cbalign.data import sampling
from cbalign.data import pipeline
from cbalign.data import records as records_module
from cbalign.data import text  # noqa: E402
from cbalign.errors import UserError  # noqa: E402

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


def make_records(images=None):
    """COUNT records; record i has i % 3 + 1 captions, whose tokens are (i, which caption)."""
    groups = [number % 3 + 1 for number in range(COUNT)]
    token_ids = [[number, which, 0] for number, size in enumerate(groups) for which in range(size)]
    return pipeline.Records(
        images=encoded(COUNT) if images is None else images, token_ids=np.array(token_ids, np.int32),
        caption_offsets=np.cumsum([0] + groups, dtype=np.int64), captions=[["a"] * size for size in groups],
        ids=np.arange(COUNT, dtype=np.int32) + 100, names=[str(number) for number in range(COUNT)],
    )


@pytest.fixture(scope="module")
def records():
    return make_records()


def batches(records, count, **options):
    options = {"seed": 5, "global_batch": 6, "second_view": True, "rand_augment": False, **VIEW, **options}
    return list(itertools.islice(pipeline.train_batches(records, **options), count))


def assert_same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def test_batch_layout(records):
    batch, = batches(records, 1)
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "image": (np.uint8, (6, 16, 16, 3)), "image_teacher": (np.uint8, (6, 16, 16, 3)), "text": (np.int32, (6, 3)),
        "id": (np.int32, (6,)), "index": (np.int32, (6,)), "replaced": (np.bool_, (6,)),
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


def test_decoding_each_time_or_once_is_the_same(monkeypatch):
    once = make_records()
    arrays = make_records(np.stack([views.decode(image).numpy() for image in once.images]))
    assert arrays.images.shape == (COUNT, 40, 40, 3) and once.decoded and arrays.decoded
    monkeypatch.setattr(records_module, "DECODED_LIMIT", COUNT * 40 * 40 * 3 - 1)
    each = make_records()
    assert not each.decoded
    assert_same(batches(once, 4), batches(each, 4))
    assert_same(batches(once, 4), batches(arrays, 4))
    options = {"image_size": 12, "batch_size": 8}
    for one, other in zip(pipeline.eval_images(once, **options), pipeline.eval_images(each, **options), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_images_of_several_sizes_too(monkeypatch):
    once, each = (make_records(encoded(COUNT, sizes=((20, 20), (31, 18)))) for _ in range(2))
    assert once.decoded
    monkeypatch.setattr(records_module, "DECODED_LIMIT", 1)
    assert not each.decoded
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


def test_from_split(tmp_path):
    path = tmp_path / "vocab.txt"
    text.train_vocabulary(["a red ball", "a blue box"], path, size=40)
    tokenizer = text.load_tokenizer(path)
    split = {"images": encoded(3), "captions": [["A red ball!", "a Blue-box"], ["a box"], ["red, red"]],
             "ids": np.array([4, 4, 9], np.int64), "names": ["x", "y", "z"]}
    records = pipeline.Records.from_split(split, tokenizer, max_length=6)
    flat = ["a red ball", "a blue box", "a box", "red red"]
    np.testing.assert_array_equal(records.token_ids, text.encode(tokenizer, flat, max_length=6))
    assert records.caption_offsets.tolist() == [0, 2, 3, 4] and records.caption_offsets.dtype == np.int64
    assert records.ids.tolist() == [4, 4, 9] and records.ids.dtype == np.int32
    assert records.captions[0] == ["A red ball!", "a Blue-box"] and len(records) == 3
    silent = pipeline.Records.from_split(split | {"captions": [["a"], [], ["?!"]]}, tokenizer, max_length=6)
    with pytest.raises(UserError, match="2 of 3 records have no caption"):
        batches(silent, 1, global_batch=2)
    with pytest.raises(UserError, match="none of 3 records has a caption"):
        pipeline.Records.from_split(split | {"captions": [[], [], []]}, tokenizer, max_length=6)
    with pytest.raises(UserError, match="32 bits"):
        pipeline.Records.from_split(split | {"ids": np.array([0, 1, 2**40])}, tokenizer, max_length=6)


def test_steps_and_user_mistakes(records):
    assert pipeline.steps_per_epoch(23, 6) == 3 and pipeline.steps_per_epoch(23, 23) == 1
    with pytest.raises(UserError, match="global batch of 24 does not fit 23 records"):
        batches(records, 1, global_batch=24)
    with pytest.raises(UserError, match="among 4 processes"):
        batches(records, 1, process_count=4)


@pytest.mark.parametrize("batch_size", [5, 23, 40])
def test_eval_images(records, batch_size):
    results = list(pipeline.eval_images(records, image_size=12, batch_size=batch_size))
    assert all(images.shape == (batch_size, 12, 12, 3) and images.dtype == np.uint8 for images, _ in results)
    assert [valid for _, valid in results[:-1]] == [batch_size] * (len(results) - 1)
    kept = np.concatenate([images[:valid] for images, valid in results])
    reference = [Image.open(io.BytesIO(data)).resize((12, 12), Image.BICUBIC) for data in records.images]
    assert kept.shape[0] == COUNT
    assert np.abs(kept.astype(float) - np.stack([np.asarray(image) for image in reference])).mean() < 0.5
    images, valid = results[-1]
    assert (images[valid:] == images[valid - 1]).all()
