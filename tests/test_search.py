"""Search in a folder of pictures, with a tiny run."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cbalign import runs, search
from cbalign.__main__ import main
from cbalign.data import augment
from cbalign.errors import UserError


def picture(seed, size=(40, 30)):
    """Blotches of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def folder(tmp_path):
    """Five pictures of several kinds, one of them broken, beside other files."""
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    picture(0).save(root / "a.png")
    picture(1).save(root / "b.JPG", "JPEG")
    picture(2).convert("P").save(root / "sub" / "c.gif")
    picture(3).save(root / "sub" / "d.webp")
    picture(9).save(root / ".hidden" / "no.png")
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:40])
    (root / "notes.txt").write_text("not a picture")
    return root


@pytest.fixture(scope="session")
def opened(tiny_run):
    return runs.open_run(tiny_run)


@pytest.fixture(scope="session")
def encoder(opened):
    return search.Encoder.of(opened)


@pytest.fixture
def own_run(opened, tmp_path):
    """The run with a cache of its own."""
    return runs.Run(tmp_path, opened.config, opened.tokenizer, opened.task)


def touch_later(path):
    """Makes sure that the time of change differs, however coarse the clock of the file system."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))


def names(index):
    return [os.path.basename(path) for path in index.paths]


def test_the_picture_itself_ranks_first(opened, encoder, folder):
    index = search.index_folder(opened, folder, encoder=encoder)
    assert names(index) == ["a.png", "b.JPG", "c.gif", "d.webp"]
    np.testing.assert_allclose(np.linalg.norm(index.features, axis=1), 1, atol=1e-5)
    for name in ("a.png", "b.JPG"):
        first, *others = search.search(index, encoder.picture(folder / name), 10)
        assert first.path == str(folder / name) and first.score == pytest.approx(1, abs=1e-5)
        assert len(others) == 3 and all(hit.score <= first.score for hit in others)
    assert len(search.search(index, encoder.picture(folder / "a.png"), 2)) == 2


def test_broken_pictures_are_skipped_and_named(opened, encoder, folder):
    (folder / "empty.png").touch()
    expected = [search.Skipped(str(folder / f"{reason}.png"), reason) for reason in ("broken", "empty")]
    assert search.index_folder(opened, folder, encoder=encoder).skipped == expected
    # They are not read again, but named again.
    again = search.index_folder(opened, folder, encoder=encoder)
    assert again.skipped == expected and again.encoded == 0


def test_features_are_kept_until_a_file_changes(own_run, encoder, folder):
    first = search.index_folder(own_run, folder, encoder=encoder)
    assert first.encoded == 4
    same = search.index_folder(own_run, folder, encoder=encoder)
    assert same.encoded == 0 and same.paths == first.paths
    np.testing.assert_array_equal(same.features, first.features)

    picture(7).save(folder / "a.png")
    touch_later(folder / "a.png")
    picture(8).save(folder / "new.bmp")
    (folder / "b.JPG").unlink()
    changed = search.index_folder(own_run, folder, encoder=encoder)
    assert changed.encoded == 2 and names(changed) == ["a.png", "new.bmp", "c.gif", "d.webp"]
    np.testing.assert_allclose(changed.features[0], encoder.picture(folder / "a.png"), atol=1e-5)
    np.testing.assert_array_equal(changed.features[2:], first.features[2:])

    picture(0).save(folder / "broken.png")
    touch_later(folder / "broken.png")
    mended = search.index_folder(own_run, folder, encoder=encoder)
    assert mended.encoded == 1 and not mended.skipped


def test_a_file_that_goes_leaves_the_cache_without_encoding(own_run, encoder, folder):
    search.index_folder(own_run, folder, encoder=encoder)
    (folder / "a.png").unlink()
    assert search.index_folder(own_run, folder, encoder=encoder).encoded == 0
    stored = np.load(next((own_run.workdir / "search").glob("pictures-*.npz")))
    assert "a.png" not in stored["paths"].tolist()


def test_other_weights_or_a_damaged_cache_are_not_used(own_run, encoder, folder):
    search.index_folder(own_run, folder, encoder=encoder)
    other = search.Encoder(**{**vars(encoder), "fingerprint": "another"})
    assert search.index_folder(own_run, folder, encoder=other).encoded == 4
    assert search.index_folder(own_run, folder, encoder=encoder).encoded == 4
    cache = next((own_run.workdir / "search").glob("pictures-*.npz"))
    cache.write_bytes(cache.read_bytes()[:100])
    assert search.index_folder(own_run, folder, encoder=encoder).encoded == 4
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_checkpoints_have_fingerprints_of_their_own(opened, encoder):
    assert search.Encoder.of(opened).fingerprint == encoder.fingerprint
    steps = sorted(int(p.name) for p in (opened.workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert len(steps) > 1
    prints = {search.Encoder.of(opened, checkpoint=str(step)).fingerprint for step in steps}
    assert len(prints) == len(steps) and encoder.fingerprint in prints


def test_what_is_done_survives_an_interruption(own_run, encoder, folder):
    for number in range(search.BATCH + 3):
        picture(number).save(folder / f"more{number:02d}.png")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.index_folder(own_run, folder, encoder=encoder, progress=stop)
    rest = search.index_folder(own_run, folder, encoder=encoder)
    assert 0 < rest.encoded < len(rest.paths) == search.BATCH + 7


def test_same_features_whatever_the_batch(opened, encoder, folder):
    index = search.index_folder(opened, folder, encoder=encoder)
    alone = np.stack([encoder.picture(path) for path in index.paths])
    np.testing.assert_allclose(alone, index.features, atol=1e-5)


def test_a_folder_without_pictures_is_an_error(opened, encoder, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match="no pictures in"):
        search.index_folder(opened, tmp_path, encoder=encoder)
    with pytest.raises(UserError, match="is not a folder"):
        search.index_folder(opened, tmp_path / "none", encoder=encoder)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="none of the 1 pictures"):
        search.index_folder(opened, tmp_path, encoder=encoder)


def test_pictures_are_resized_as_in_the_evaluation(tmp_path):
    picture(4, (71, 53)).save(tmp_path / "a.png")
    expected = augment.resize(augment.decode((tmp_path / "a.png").read_bytes()), 32).numpy()
    np.testing.assert_array_equal(search.read_picture(tmp_path / "a.png", 32), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_all_modes_are_read(tmp_path, mode):
    name = "a.tiff" if mode in ("CMYK", "YCbCr", "I;16", "F") else "a.png"
    picture(5).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode).save(tmp_path / name)
    pixels = search.read_picture(tmp_path / name, 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 and pixels.std() > 0


def test_transparent_parts_are_white_and_the_camera_is_turned(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (search.read_picture(tmp_path / "clear.png", 8) == 255).all()
    turned = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, axis=0).repeat(4, axis=1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    turned.save(tmp_path / "turned.png", exif=exif)
    pixels = search.read_picture(tmp_path / "turned.png", 8)
    assert pixels[0].max() < 50 and pixels[-1].min() > 200


def test_a_picture_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    picture(0).save(tmp_path / "a.png")
    monkeypatch.setattr(search, "MAX_PIXELS", 100)
    with pytest.raises(search.UnreadablePicture, match="too large"):
        search.read_picture(tmp_path / "a.png", 8)


def test_text_warnings(encoder):
    feature, warnings = encoder.text("A large red circle!")
    assert not warnings and np.linalg.norm(feature) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(feature, encoder.text("a LARGE red circle")[0])
    assert "means nothing" in encoder.text("漢字")[1][0]
    assert "means nothing" in encoder.text(" ?! ")[1][0]
    assert "only the first 11 tokens" in encoder.text("red circle " * 20)[1][0]


def test_command_prints_json(tiny_run, folder, capsys):
    like = folder / "b.JPG"
    shutil.copy(like, folder / "copy.jpg")
    arguments = ["search", f"--workdir={tiny_run}", f"--images={folder}"]
    assert main([*arguments, f"--like={like}", "--top=3", "--json"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["query"] == str(like) and [hit["rank"] for hit in answer["results"]] == [1, 2, 3]
    assert {hit["path"] for hit in answer["results"][:2]} == {str(like), str(folder / "copy.jpg")}
    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert answer["skipped"] == [{"path": str(folder / "broken.png"), "reason": "broken"}]
    assert "skipped 1 picture" in printed.err and "broken.png: broken" in printed.err

    assert main([*arguments, "漢字"]) == 0
    printed = capsys.readouterr()
    assert "means nothing" in printed.err
    rows = [line.split() for line in printed.out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert sorted((float(row[1]) for row in rows), reverse=True) == [float(row[1]) for row in rows]


@pytest.mark.parametrize("rest, message", [
    ([], "either a text"), (["a truck", "--like=a.png"], "both were given"), (["a truck", "--top=0"], "--top=0"),
])
def test_command_needs_one_query(tiny_run, folder, capsys, rest, message):
    assert main(["search", f"--workdir={tiny_run}", f"--images={folder}", *rest]) == 2
    assert message in capsys.readouterr().err


def test_command_names_an_unusable_query_picture(tiny_run, folder, capsys):
    assert main(["search", f"--workdir={tiny_run}", f"--images={folder}", f"--like={folder}/none.png"]) == 2
    assert "none.png cannot be used (missing)" in capsys.readouterr().err
