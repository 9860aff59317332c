"""`cbalign search` and `cbalign embed` as a person meets them."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from cbalign.__main__ import main
from cbalign.data import text
from cbalign.report.demo import sets

pytestmark = pytest.mark.usefixtures("compiled")


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
    assert answer["left_out"] == {".txt files": 1}
    assert "skipped 1 image" in printed.err and "broken.png: broken" in printed.err

    assert main([*arguments, "漢字"]) == 0
    printed = capsys.readouterr()
    assert "is meaningless" in printed.err and "not searched: 1 .txt file" in printed.err
    rows = [line.split() for line in printed.out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert sorted((float(row[1]) for row in rows), reverse=True) == [float(row[1]) for row in rows]


@pytest.mark.parametrize(
    "rest, message",
    [([], "either texts"), (["a truck", "--like=a.png"], "both were given"), (["a truck", "--top=0"], "--top=0")],
)
def test_command_needs_one_query(tiny_run, folder, capsys, rest, message):
    assert main(["search", f"--workdir={tiny_run}", f"--images={folder}", *rest]) == 2
    assert message in capsys.readouterr().err


def test_several_texts_and_a_sheet_of_what_they_found(tiny_run, folder, tmp_path, capsys):
    arguments = ["search", f"--workdir={tiny_run}", f"--images={folder}", "--top=2", "a red circle", "a green square"]
    assert main([*arguments, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["query"] for answer in answers] == ["a red circle", "a green square"]
    sheet = tmp_path / "found.png"
    assert main([*arguments, f"--sheet={sheet}"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    for block, answer in zip((first, second), answers, strict=True):
        query, *hits = block.splitlines()
        assert query == answer["query"]
        assert [line.split()[2] for line in hits] == [hit["path"] for hit in answer["results"]]
    with Image.open(sheet) as image, Image.open(answers[1]["results"][0]["path"]) as hit:
        # Below the second title, in the first column: the best image of the second text, as large as it fits.
        expected = ImageOps.contain(hit.convert("RGB"), (112, 112))
        top = 10 + 160 + 22 + (112 - expected.height) // 2
        left = 10 + (112 - expected.width) // 2
        np.testing.assert_array_equal(
            np.asarray(image)[top : top + expected.height, left : left + expected.width], np.asarray(expected)
        )


def test_a_sheet_that_cannot_be_written_is_told_before_the_search(tmp_path, capsys):
    assert main(["search", "--workdir=none", f"--sheet={tmp_path / 'found.gif'}", "a truck"]) == 2
    assert "found.gif must be a file that ends in .png" in capsys.readouterr().err


def test_without_a_folder_rendered_images_are_searched(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sets, "user_cache", lambda: tmp_path)
    monkeypatch.setattr(sets, "SCENES", 3)
    assert main(["search", f"--workdir={tiny_run}", "a red circle"]) == 0
    printed = capsys.readouterr()
    assert "without --images, using drawn scenes" in printed.err
    assert {line.split("/")[-1] for line in printed.out.splitlines()} == {
        f"scene_00{number}.png" for number in range(3)
    }


def test_command_names_an_unusable_query_image(tiny_run, folder, capsys):
    assert main(["search", f"--workdir={tiny_run}", f"--images={folder}", f"--like={folder}/none.png"]) == 2
    assert "none.png cannot be used (missing)" in capsys.readouterr().err


def embed(tiny_run, out, *rest):
    return main(["embed", f"--workdir={tiny_run}", f"--out={out}", *map(str, rest)])


def test_embed_writes_images_with_their_names(tiny_run, encoder, folder, tmp_path, capsys):
    out = tmp_path / "new" / "images.npz"
    assert embed(tiny_run, out, f"--images={folder}") == 0
    stored = np.load(out)
    assert stored["names"].tolist() == ["a.png", "b.JPG", "sub/c.gif", "sub/d.webp"]
    assert stored["features"].dtype == np.float32
    for name, feature in zip(stored["names"], stored["features"], strict=True):
        np.testing.assert_allclose(feature, encoder.image(folder / str(name)), atol=1e-5)
    assert "broken.png: broken" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_embed_writes_texts_with_their_names(tiny_run, opened, encoder, folder, tmp_path, capsys):
    lines = ["A red circle!", "a blue square\u2028of two lines", "漢字"]
    (tmp_path / "texts.txt").write_bytes(("\ufeff" + lines[0] + "\r\n\n  \n" + "\n".join(lines[1:])).encode())
    out = tmp_path / "texts.npz"
    assert embed(tiny_run, out, f"--texts={tmp_path / 'texts.txt'}") == 0
    assert "1 of 3 texts have no word" in capsys.readouterr().err
    stored = np.load(out)
    assert stored["names"].tolist() == lines
    # What the model says of the same texts when asked directly.
    ids = text.encode(opened.tokenizer, [text.clean_caption(line) for line in lines], max_length=encoder.max_tokens)
    expected = opened.task.model.apply({"params": opened.params()}, ids, method="encode_text")["feature"]
    np.testing.assert_allclose(stored["features"], expected, atol=1e-5)
    assert embed(tiny_run, tmp_path / "images.npz", f"--images={folder}") == 0
    assert np.load(tmp_path / "images.npz")["weights"] == stored["weights"]


def test_mistakes_of_embed_are_named_before_any_work(tiny_run, folder, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "folder.npz").mkdir()
    out, texts = tmp_path / "out.npz", tmp_path / "latin.txt"
    for rest, message in (
        (["--out=a.npz"], "either --images=FOLDER or --texts=FILE"),
        ([f"--out={out}", f"--images={folder}", f"--texts={texts}"], "both were given"),
        ([f"--out={tmp_path / 'out.txt'}", f"--images={folder}"], "must end in .npz"),
        ([f"--out={tmp_path / 'folder.npz'}", f"--images={folder}"], "is a folder"),
        ([f"--out={out}", f"--texts={texts}"], "not UTF-8"),
        ([f"--out={out}", f"--texts={tmp_path / 'none.txt'}"], "no file"),
        ([f"--out={out}", f"--texts={tmp_path / 'blank.txt'}"], "holds no text"),
        ([f"--out={out}", f"--images={tmp_path / 'none'}"], "is not a folder"),
    ):
        assert main(["embed", f"--workdir={tiny_run}", *rest]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_is_compiled_is_kept_for_the_next_time(tiny_run, folder, compiled):
    jax.clear_caches()  # as in a new process; other tests have used the same model
    assert main(["search", f"--workdir={tiny_run}", f"--images={folder}", "a red circle"]) == 0
    assert any(compiled.iterdir())
