"""Epochs over pairs: each image-caption pair once, whatever the processes, the step a run resumes at, or the mixture."""

import itertools

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from cbalign.data import pipeline, records
from cbalign.data.columns import text_columns
from cbalign.errors import UserError
from cbalign.experiments import published
from tests.data import stored_sets

FIRST_NUMBER = 8
"""Token id of the word "0" in the tests' vocabulary."""


def captions(number):
    """As many captions as the record's number modulo 4, plus one; each says the number of the record and its own."""
    return [f"image {number} seen {which}" for which in range(number % 4 + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return stored_sets.tokenizer(folder)


@pytest.fixture(scope="module")
def names(folder):
    """Sixteen images with 40 captions, and eight other ones with 20."""
    parts = {"many": range(16), "few": range(100, 108)}
    return {
        name: stored_sets.write(folder, name, {"train": [stored_sets.record(n, captions=captions(n)) for n in numbers]})
        for name, numbers in parts.items()
    }


def opened(name, tokenizer, split="train", *, memory=False, over="pairs"):
    with pytest.MonkeyPatch.context() as patch:
        if not memory:
            patch.setattr(records, "MEMORY_LIMIT", 0)
        source = records.open_records("captions", name, split, epoch_over=over)
    return source, text_columns(source, tokenizer, max_length=6)


def batches(source, count, **options):
    options = {"seed": 5, "global_batch": 4, "image_size": 8, "scale": (0.2, 1.0), "rand_augment": False, **options}
    return list(itertools.islice(pipeline.train_batches(*source, threads=2, **options), count))


def pairs(stream):
    """(number of the record, number of its caption) of each row, as the captions tell them."""
    rows = np.concatenate([batch["text"] for batch in stream]).tolist()
    return [tuple(token - FIRST_NUMBER for token in row if token >= FIRST_NUMBER) for row in rows]


def all_pairs(numbers):
    return [(number, which) for number in numbers for which in range(number % 4 + 1)]


def assert_same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other):
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


def joined(parts):
    return [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts)]


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("process_count", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_each_pair_once_an_epoch(names, tokenizer, memory, process_count):
    source = opened(names["many"], tokenizer, memory=memory)
    assert source[0].epoch_size == 40 and len(source[0]) == 16
    whole = joined([batches(source, 20, process_index=i, process_count=process_count) for i in range(process_count)])
    drawn = pairs(whole)
    epochs = [drawn[:40], drawn[40:]]
    assert [sorted(epoch) for epoch in epochs] == [all_pairs(range(16))] * 2 and epochs[0] != epochs[1]
    # The image's own id and, in its own colours, the image itself.
    np.testing.assert_array_equal(np.concatenate([batch["id"] for batch in whole]), [n + 1000 for n, _ in drawn])
    # Any step may be the first, within an epoch and across its end.
    for step in (3, 13) if process_count == 1 else (9,):
        parts = [
            batches(source, 20 - step, start_step=step, process_index=i, process_count=process_count)
            for i in range(process_count)
        ]
        assert_same(whole[step:], joined(parts))


def test_the_image_is_that_of_the_caption(names, tokenizer):
    """Unlike its neighbours', so that a row read from another record would be found."""
    import io

    from PIL import Image

    stream = batches(opened(names["many"], tokenizer), 10, scale=(1.0, 1.0), flip=False)
    shown = {}
    for batch in stream:
        for image, (number, _) in zip(batch["image"], pairs([batch])):
            shown.setdefault(number, []).append(image)
    assert len(shown) == 16
    for number, images in shown.items():
        own = Image.open(io.BytesIO(stored_sets.jpeg(number))).convert("RGB").resize((8, 8), Image.Resampling.BICUBIC)
        # A crop of the whole area may still cut a little off the longer side.
        assert all(np.abs(image - np.asarray(own, float)).mean() < 16 for image in images)


def test_over_images_the_counts_are_others(names, tokenizer):
    source = opened(names["many"], tokenizer, over="images")
    drawn = pairs(batches(source, 4))
    assert source[0].epoch_size == 16 and sorted(number for number, _ in drawn) == list(range(16))


@pytest.mark.parametrize("memory", [True, False])
def test_shares_of_a_mixture_follow_the_pairs(names, tokenizer, memory):
    source = opened(f"{names['many']}+{names['few']}*0.5", tokenizer, memory=memory)
    records_, _ = source
    assert [(part.first, part.count, part.per_epoch) for part in records_.parts] == [(0, 40, 40), (40, 20, 10)]
    stream = batches(source, 20, global_batch=5)
    epochs = [pairs(stream[:10]), pairs(stream[10:])]
    halves = []
    for epoch in epochs:
        assert sorted(pair for pair in epoch if pair[0] < 100) == all_pairs(range(16))
        halves.append([pair for pair in epoch if pair[0] >= 100])
    # With weight 0.5 the second epoch takes the half that the first left.
    assert [len(half) for half in halves] == [10, 10]
    assert sorted(halves[0] + halves[1]) == all_pairs(range(100, 108))
    lines = records_.epoch_lines()
    assert "50 samples (60 pairs" in lines[0] and "24 records" in lines[0]
    assert lines[1].split()[-2:] == ["40", "80.0%"] and lines[2].split()[-2:] == ["10", "20.0%"]
    over_images = opened(f"{names['many']}+{names['few']}*0.5", tokenizer, over="images")[0].epoch_lines()
    assert "20 samples (one text of each image; 24 records)" in over_images[0]
    assert over_images[1].split()[-2:] == ["16", "80.0%"] and over_images[2].split()[-2:] == ["4", "20.0%"]


def test_shares_of_the_papers_data_are_those_of_its_pairs():
    """With the numbers of images and texts that the literature reports: of COCO 11 %, of Visual Genome 15 %."""
    counts = {
        name: [published.figures("pretraining_data", name)[column].value for column in ("images", "texts")]
        for name in ("COCO", "Visual Genome", "SBU", "CC3M")
    }
    images, texts = np.array(list(counts.values())).T
    offsets = (
        np.concatenate(
            [
                [0],
                *(np.linspace(0, t, n + 1)[1:] + before for n, t, before in zip(images, texts, np.cumsum([0, *texts]))),
            ]
        )
        .round()
        .astype(np.int64)
    )
    shares = {}
    for over in (None, offsets):
        parts = records._parts(images.tolist(), [1.0] * 4, over)
        whole = sum(part.per_epoch for part in parts)
        shares[over is None] = [round(100 * part.per_epoch / whole, 1) for part in parts]
        assert [part.first for part in parts] == np.cumsum([0, *(images if over is None else texts)])[:-1].tolist()
    assert shares[True] == [2.8, 2.5, 21.4, 73.3] and shares[False] == [11.0, 14.9, 16.7, 57.3]
    assert texts.sum() == 5_145_000


def test_a_slice_counts_its_own_pairs(names, tokenizer):
    source = opened(names["many"], tokenizer, "train[5:9]")
    drawn = pairs(batches(source, 2, global_batch=5))
    assert source[0].epoch_size == 10 and sorted(drawn) == all_pairs(range(5, 9))


@pytest.mark.parametrize("memory", [True, False])
def test_pairs_without_words_and_broken_images_are_replaced_and_counted(folder, tokenizer, memory):
    """Record 1 has a caption of which cleaning leaves nothing, record 3 no caption, record 6 no image."""
    made = [stored_sets.record(n, captions=captions(n)) for n in range(12)]
    made[1]["captions"] = ["?!", "image 1 seen 1"]
    made[3]["captions"] = []
    made[6]["image"] = b"text"
    name = stored_sets.write(folder, f"bad_{memory}", {"train": made})
    good = sorted(pair for pair in all_pairs(range(12)) if pair[0] not in (3, 6) and pair != (1, 0))
    source = opened(name, tokenizer, memory=memory)
    # Thirty pairs, less the four captions of record 3, which make no pair.
    assert source[0].epoch_size == 26
    stream = batches(source, 13, global_batch=2, max_bad_share=0.2)
    replaced = np.concatenate([batch["replaced"] for batch in stream])
    drawn = pairs(stream)
    assert replaced.sum() == 1 + 3
    assert sorted(pair for pair, other in zip(drawn, replaced) if not other) == good
    assert set(drawn) <= set(good)
    assert_same(stream[5:], batches(source, 8, global_batch=2, max_bad_share=0.2, start_step=5))
    with pytest.raises(UserError, match="1 of 12 records have no caption"):
        batches(source, 1, global_batch=2, max_bad_share=0.05)


def test_a_source_without_any_caption_is_refused(folder, names):
    name = stored_sets.write(folder, "mute", {"train": [stored_sets.record(n, captions=[]) for n in range(4)]})
    with pytest.raises(UserError, match="none of the records of .*mute.* has a caption"):
        records.open_records("captions", f"{names['many']}+{name}", "train", epoch_over="pairs")


@pytest.mark.parametrize("kind", ["questions", "image_pairs", "entailment"])
def test_with_one_text_a_record_both_are_the_same(folder, tokenizer, kind):
    name = stored_sets.write(
        folder, f"one_{kind}", {"train": [stored_sets.MAKERS[kind](n) for n in range(8)]}, kind=kind
    )
    streams = []
    for over in ("images", "pairs"):
        source = records.open_records(kind, name, "train", epoch_over=over)
        streams.append(batches((source, text_columns(source, tokenizer, max_length=6)), 4))
    assert_same(*streams)
