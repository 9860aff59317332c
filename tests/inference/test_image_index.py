"""The index of a folder of images, with a tiny run."""

import os

import numpy as np
import pytest

from cbalign.runs.workdir import Run
from cbalign import inference
from cbalign.errors import UserError
from tests.inference.conftest import blotches


@pytest.fixture
def own_run(opened, tmp_path):
    """The run with a cache of its own."""
    return Run(tmp_path, opened.config, opened.tokenizer, opened.task)


def touch_later(path):
    """Makes sure that the time of change differs, however coarse the clock of the file system."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))


def names(index):
    return [os.path.basename(path) for path in index.paths]


def test_the_image_itself_ranks_first(opened, encoder, folder):
    index = inference.index_folder(opened, folder, encoder=encoder)
    assert names(index) == ["a.png", "b.JPG", "c.gif", "d.webp"]
    np.testing.assert_allclose(np.linalg.norm(index.features, axis=1), 1, atol=1e-5)
    for name in ("a.png", "b.JPG"):
        first, *others = inference.search(index, encoder.image(folder / name), 10)
        assert first.path == str(folder / name) and first.score == pytest.approx(1, abs=1e-5)
        assert len(others) == 3 and all(hit.score <= first.score for hit in others)
    assert len(inference.search(index, encoder.image(folder / "a.png"), 2)) == 2


def test_broken_images_are_skipped_and_named(opened, encoder, folder):
    (folder / "empty.png").touch()
    expected = [inference.Skipped(str(folder / f"{reason}.png"), reason) for reason in ("broken", "empty")]
    assert inference.index_folder(opened, folder, encoder=encoder).skipped == expected
    # They are not read again, but named again.
    again = inference.index_folder(opened, folder, encoder=encoder)
    assert again.skipped == expected and again.encoded == 0


def test_features_are_kept_until_a_file_changes(own_run, encoder, folder):
    first = inference.index_folder(own_run, folder, encoder=encoder)
    assert first.encoded == 4
    same = inference.index_folder(own_run, folder, encoder=encoder)
    assert same.encoded == 0 and same.paths == first.paths
    np.testing.assert_array_equal(same.features, first.features)

    blotches(7).save(folder / "a.png")
    touch_later(folder / "a.png")
    blotches(8).save(folder / "new.bmp")
    (folder / "b.JPG").unlink()
    changed = inference.index_folder(own_run, folder, encoder=encoder)
    assert changed.encoded == 2 and names(changed) == ["a.png", "new.bmp", "c.gif", "d.webp"]
    np.testing.assert_allclose(changed.features[0], encoder.image(folder / "a.png"), atol=1e-5)
    np.testing.assert_array_equal(changed.features[2:], first.features[2:])

    blotches(0).save(folder / "broken.png")
    touch_later(folder / "broken.png")
    mended = inference.index_folder(own_run, folder, encoder=encoder)
    assert mended.encoded == 1 and not mended.skipped


def test_a_file_that_goes_leaves_the_cache_without_encoding(own_run, encoder, folder):
    inference.index_folder(own_run, folder, encoder=encoder)
    (folder / "a.png").unlink()
    assert inference.index_folder(own_run, folder, encoder=encoder).encoded == 0
    stored = np.load(next((own_run.workdir / "search").glob("images-*.npz")))
    assert "a.png" not in stored["paths"].tolist()


def test_other_weights_or_a_damaged_cache_are_not_used(own_run, encoder, folder):
    inference.index_folder(own_run, folder, encoder=encoder)
    other = inference.Encoder(**{**vars(encoder), "fingerprint": "another"})
    assert inference.index_folder(own_run, folder, encoder=other).encoded == 4
    assert inference.index_folder(own_run, folder, encoder=encoder).encoded == 4
    cache = next((own_run.workdir / "search").glob("images-*.npz"))
    cache.write_bytes(cache.read_bytes()[:100])
    assert inference.index_folder(own_run, folder, encoder=encoder).encoded == 4
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_checkpoints_have_fingerprints_of_their_own(opened, encoder):
    assert inference.Encoder.of(opened).fingerprint == encoder.fingerprint
    steps = sorted(int(p.name) for p in (opened.workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert len(steps) > 1
    prints = {inference.Encoder.of(opened, checkpoint=str(step)).fingerprint for step in steps}
    assert len(prints) == len(steps) and encoder.fingerprint in prints


def test_what_is_done_survives_an_interruption(own_run, encoder, folder):
    for number in range(inference.BATCH + 3):
        blotches(number).save(folder / f"more{number:02d}.png")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inference.index_folder(own_run, folder, encoder=encoder, progress=stop)
    rest = inference.index_folder(own_run, folder, encoder=encoder)
    assert 0 < rest.encoded < len(rest.paths) == inference.BATCH + 7


def test_same_features_whatever_the_batch(opened, encoder, folder):
    index = inference.index_folder(opened, folder, encoder=encoder)
    alone = np.stack([encoder.image(path) for path in index.paths])
    np.testing.assert_allclose(alone, index.features, atol=1e-5)


def test_a_folder_without_images_is_an_error(opened, encoder, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match="no images in"):
        inference.index_folder(opened, tmp_path, encoder=encoder)
    with pytest.raises(UserError, match="is not a folder"):
        inference.index_folder(opened, tmp_path / "none", encoder=encoder)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="none of the 1 images"):
        inference.index_folder(opened, tmp_path, encoder=encoder)
