"""The index of a folder of images, with a tiny run."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from cbalign import inference
from cbalign.errors import UserError
from cbalign.inference import image_index
from cbalign.inference.image_index import best_rows
from tests.inference.conftest import blotches
from tests.inference.mapped import mapped_file


@pytest.fixture
def cache(tmp_path):
    """A folder for stored features."""
    return tmp_path / "search"


def touch_later(path):
    """Makes sure that the time of change differs, however coarse the clock of the file system."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))


def names(index):
    return [os.path.basename(path) for path in index.paths]


def test_the_image_itself_ranks_first(cache, encoder, folder):
    index = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert names(index) == ["a.png", "b.JPG", "c.gif", "d.webp"]
    np.testing.assert_allclose(np.linalg.norm(index.features, axis=1), 1, atol=1e-5)
    for name in ("a.png", "b.JPG"):
        first, *others = inference.search(index, encoder.image(folder / name), 10)
        assert first.path == str(folder / name) and first.score == pytest.approx(1, abs=1e-5)
        assert len(others) == 3 and all(hit.score <= first.score for hit in others)
    assert len(inference.search(index, encoder.image(folder / "a.png"), 2)) == 2


def test_broken_images_are_skipped_and_named(cache, encoder, folder):
    (folder / "empty.png").touch()
    expected = [
        inference.Skipped(str(folder / "broken.png"), "broken"),
        inference.Skipped(str(folder / "empty.png"), "empty file"),
    ]
    assert inference.index_folder(folder, cache=cache, encoder=encoder).skipped == expected
    # They are not read again, but named again.
    again = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert again.skipped == expected and again.encoded == 0


def test_features_are_kept_until_a_file_changes(cache, encoder, folder):
    first = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert first.encoded == 4
    same = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert same.encoded == 0 and same.paths == first.paths
    np.testing.assert_array_equal(same.features, first.features)
    (file,) = cache.iterdir()
    assert mapped_file(first.features) == mapped_file(same.features) == str(file)

    blotches(7).save(folder / "a.png")
    touch_later(folder / "a.png")
    blotches(8).save(folder / "new.bmp")
    (folder / "b.JPG").unlink()
    changed = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert changed.encoded == 2 and names(changed) == ["a.png", "new.bmp", "c.gif", "d.webp"]
    np.testing.assert_allclose(changed.features[0], encoder.image(folder / "a.png"), atol=1e-5)
    np.testing.assert_array_equal(changed.features[2:], first.features[2:])

    blotches(0).save(folder / "broken.png")
    touch_later(folder / "broken.png")
    mended = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert mended.encoded == 1 and not mended.skipped


def test_a_file_that_goes_leaves_the_cache_without_encoding(cache, encoder, folder):
    inference.index_folder(folder, cache=cache, encoder=encoder)
    (folder / "a.png").unlink()
    assert inference.index_folder(folder, cache=cache, encoder=encoder).encoded == 0
    stored = load_file(next(cache.glob("images-*")))
    assert stored["names"].tobytes() == b"b.JPG\0broken.png\0sub/c.gif\0sub/d.webp"
    assert stored["without"].tolist() == [1] and len(stored["features"]) == 3


def test_other_weights_or_a_damaged_cache_are_not_used(cache, encoder, folder):
    inference.index_folder(folder, cache=cache, encoder=encoder)
    other = inference.Encoder(**{**vars(encoder), "fingerprint": "another"})
    assert inference.index_folder(folder, cache=cache, encoder=other).encoded == 4
    assert inference.index_folder(folder, cache=cache, encoder=encoder).encoded == 4
    stored = next(cache.glob("images-*"))
    whole = stored.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:-90] + bytes(90)):
        stored.unlink()
        stored.write_bytes(damaged)
        assert inference.index_folder(folder, cache=cache, encoder=encoder).encoded == 4
        assert stored.read_bytes() == whole
    assert [path.name for path in cache.iterdir()] == [stored.name]


def test_checkpoints_have_fingerprints_of_their_own(opened, encoder):
    assert inference.Encoder.of(opened).fingerprint == encoder.fingerprint
    steps = sorted(int(p.name) for p in (opened.workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert len(steps) > 1
    prints = {inference.Encoder.of(opened, checkpoint=str(step)).fingerprint for step in steps}
    assert len(prints) == len(steps) and encoder.fingerprint in prints


def test_what_is_done_survives_an_interruption(cache, encoder, folder):
    for number in range(inference.BATCH + 3):
        blotches(number).save(folder / f"more{number:02d}.png")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inference.index_folder(folder, cache=cache, encoder=encoder, progress=stop)
    rest = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert 0 < rest.encoded < len(rest.paths) == inference.BATCH + 7


def test_finished_batches_are_stored_while_the_others_are_read(cache, encoder, folder, monkeypatch):
    for number in range(2 * inference.BATCH):
        blotches(number).save(folder / f"more{number:02d}.png")
    stored = []

    def look(done, total):
        files = list(cache.glob("images-*")) if cache.exists() else []
        stored.append(len(load_file(files[0])["sizes"]) if files else 0)

    inference.index_folder(folder, cache=cache, encoder=encoder, progress=look)
    assert not any(stored)  # within the first seconds
    monkeypatch.setattr(image_index, "_STORE_SECONDS", 0)
    next(cache.glob("images-*")).unlink()
    stored.clear()
    inference.index_folder(folder, cache=cache, encoder=encoder, progress=look)
    assert stored == [number * inference.BATCH for number in range(3)]


def test_half_an_index_of_a_killed_search_is_removed(cache, encoder, folder):
    inference.index_folder(folder, cache=cache, encoder=encoder)
    (stored,) = cache.iterdir()
    abandoned, at_work = cache / f".{stored.name}.123.partial", cache / f".{stored.name}.456.partial"
    for path in (abandoned, at_work, other := cache / ".other-0123456789ab.safetensors.123.partial"):
        path.write_bytes(b"half")
    for path in (abandoned, other):
        os.utime(path, (0, 0))
    blotches(8).save(folder / "new.bmp")
    stored.with_suffix(".npz").write_bytes(b"what an older version stored")
    inference.index_folder(folder, cache=cache, encoder=encoder)
    assert sorted(cache.iterdir()) == sorted([stored, at_work, other])


def test_same_features_whatever_the_batch(cache, encoder, folder):
    index = inference.index_folder(folder, cache=cache, encoder=encoder)
    alone = np.stack([encoder.image(path) for path in index.paths])
    np.testing.assert_allclose(alone, index.features, atol=1e-5)


def test_a_folder_without_images_is_an_error(cache, encoder, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match="no images in"):
        inference.index_folder(tmp_path, cache=cache, encoder=encoder)
    with pytest.raises(UserError, match="is not a folder"):
        inference.index_folder(tmp_path / "none", cache=cache, encoder=encoder)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="none of the 1 images"):
        inference.index_folder(tmp_path, cache=cache, encoder=encoder)


def test_other_files_are_counted_and_said(cache, encoder, folder):
    (folder / "phone.heic").write_bytes(b"x")
    index = inference.index_folder(folder, cache=cache, encoder=encoder)
    assert index.left_out == {".txt files": 1, ".heic files (no decoder installed)": 1}
    assert index.notes == ["files that are not searched: 1 .heic file (no decoder installed), 1 .txt file"]
    for name in ("a.png", "b.JPG", "broken.png", "sub/c.gif", "sub/d.webp"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="no images in .* .found 1 .heic file"):
        inference.index_folder(folder, cache=cache, encoder=encoder)


def test_features_without_a_run_are_stored_among_the_users_cache_files(encoder, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert inference.index_folder(folder, encoder=encoder).encoded == 4
    assert inference.index_folder(folder, encoder=encoder).encoded == 0
    other = inference.Encoder(**{**vars(encoder), "fingerprint": "another"})
    assert inference.index_folder(folder, encoder=other).encoded == 4
    assert inference.index_folder(folder, encoder=encoder).encoded == 0


def test_a_cache_that_cannot_be_written_is_said(encoder, folder, tmp_path):
    (tmp_path / "file").touch()
    index = inference.index_folder(folder, cache=tmp_path / "file" / "search", encoder=encoder)
    assert index.encoded == 4 and "cannot be stored" in index.notes[-1]
    np.testing.assert_allclose(np.linalg.norm(index.features, axis=1), 1, atol=1e-5)
    assert names(index) == ["a.png", "b.JPG", "c.gif", "d.webp"]


@pytest.mark.parametrize("count, top", [(1, 1), (5, 5), (5, 9), (40, 7), (1000, 10), (6000, 5)])
def test_best_rows_are_those_of_a_stable_sort(count, top):
    rng = np.random.default_rng(count)
    for levels in (1, 2, 5, 10_000):
        scores = rng.integers(0, levels, count).astype(np.float32)
        expected = sorted(range(count), key=lambda row: (-scores[row], row))[:top]
        assert best_rows(scores, top).tolist() == expected


def test_equal_scores_come_in_the_order_of_the_paths():
    features = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 1, 0]]
    index = inference.Index([f"{letter}.png" for letter in "abcdef"], features, [])
    query = np.array([0.5, 0.5, 0.0], np.float32)
    assert [hit.path for hit in inference.search(index, query, 3)] == ["a.png", "b.png", "c.png"]
    assert [hit.path for hit in inference.search(index, query, 9)] == [f"{x}.png" for x in "abcefd"]
