"""An epoch over many records on disk, of which one in fifty is damaged: nothing stops, grows or is miscounted."""

import itertools
import pathlib

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from cbalign.data import pipeline, records
from cbalign.data.columns import text_columns
from tests.data import stored_sets

BATCH = 500
IMAGES = 50
"""Different images; more would only take longer to make."""


def damaged(kind: int) -> bytes:
    """A truncated JPEG, an empty file, one that is no image, or a record of no bytes at all."""
    if kind == 3:
        return b""
    whole = stored_sets.jpeg(kind)
    return stored_sets.serialized(stored_sets.record(0, [whole[: len(whole) // 3], b"", b"no image"][kind]))


def resident_bytes() -> int:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.fixture(scope="module", params=[40_000, pytest.param(100_000, marks=pytest.mark.long)])
def source(request, tmp_path_factory):
    """(records, columns, numbers of the damaged ones, of how many)."""
    count = request.param
    folder = tmp_path_factory.mktemp("soak")
    bad = set(np.random.default_rng(0).choice(count, count // 50, replace=False).tolist())
    images = [stored_sets.jpeg(number) for number in range(IMAGES)]
    written = (
        damaged(number % 4)
        if number in bad
        else stored_sets.serialized(
            {**stored_sets.record(number, images[number % IMAGES], ["seen here"]), "id": number}
        )
        for number in range(count)
    )
    name = stored_sets.write(folder, "soak", {"train": list(written)}, shards=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MEMORY_LIMIT", 0)
        opened = records.open_records("captions", name, "train", missing="skip")
    return opened, text_columns(opened, stored_sets.tokenizer(folder), max_length=4), bad, count


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_an_epoch_with_damaged_records(source):
    stored, columns, bad, count = source
    batches = pipeline.train_batches(
        stored,
        columns,
        seed=1,
        global_batch=BATCH,
        image_size=16,
        scale=(0.5, 1.0),
        rand_augment=False,
        max_bad_share=0.05,  # of any thousand; one in fifty on average
    )
    own, stood_in, memory = [], 0, []
    for batch in itertools.islice(batches, count // BATCH):
        own.append(batch["id"][~batch["replaced"]])
        stood_in += int(batch["replaced"].sum())
        assert not set(batch["id"].tolist()) & bad
        memory.append(resident_bytes())
    # Each damaged record was replaced once and each whole one seen once in its own right.
    assert stood_in == len(bad)
    np.testing.assert_array_equal(np.sort(np.concatenate(own)), sorted(set(range(count)) - bad))
    quarter = len(memory) // 4
    growth = np.median(memory[-quarter:]) - np.median(memory[quarter : 2 * quarter])
    assert growth < 32 << 20, f"{growth / 1e6:.0f} MB more in the last quarter of the epoch than in the second"
