"""`cbalign explain` on files, and the picture it writes."""

import io

import numpy as np
import pytest
from PIL import Image

from cbalign.__main__ import main
from cbalign.inference import Explanation, TopCodes
from cbalign.report.demo import sets
from cbalign.report.heat import explanation_png, heat, scores_line
from tests.inference.conftest import blotches


@pytest.fixture
def explain(tiny_run, tmp_path, monkeypatch):
    """Runs the command on an image of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sets, "SCENES", 5)
    monkeypatch.chdir(tmp_path)
    blotches(0).save(tmp_path / "image.png")

    def run(*rest, text="a red circle", source=f"--workdir={tiny_run}", out="out.png"):
        where = [f"--out={tmp_path / out}"] if out else []
        return main(["explain", source, f"--image={tmp_path / 'image.png'}", *where, text, *map(str, rest)])

    return run


def test_the_command_writes_a_picture_and_prints_the_scores(explain, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for number in range(6):
        blotches(number).save(tmp_path / "folder" / f"{number}.png")
    assert explain("--top=3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cosine ") and "match probability" in lines[0]
    assert lines[1].startswith("codes of the image: ") and lines[2].count("%") == 3
    assert lines[3] == str(tmp_path / "out.png")
    rendered = Image.open(tmp_path / "out.png")
    assert explain("--top=3", f"--images={tmp_path / 'folder'}", out="more.png") == 0
    assert "using drawn scenes" not in capsys.readouterr().err
    named = Image.open(tmp_path / "more.png")
    # The same picture, with other images nearest to the codes.
    assert named.size == rendered.size and rendered.width > 800
    changed = np.any(np.array(named.convert("RGB")) != np.array(rendered.convert("RGB")), axis=-1)
    assert changed.any() and not changed[: rendered.height // 2].any()


def test_without_a_folder_and_a_file_to_write(explain, tmp_path, capsys):
    assert explain(out="") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "image_explained.png" and "using drawn scenes" in printed.err
    assert Image.open(tmp_path / "image_explained.png").width > 800


def test_mistakes(explain, tmp_path, capsys):
    for arguments, options, message in (
        (["--layer=4"], {}, "layer=4: the model has 1 fusion layers, 0 to 0"),
        (["--top=0"], {}, "--top=0 must be 1 or more"),
        ([], {"out": "out.jpg"}, "must be a file that ends in .png"),
        ([], {"source": "--weights=none"}, "nor the name of released weights"),
        ([f"--images={tmp_path / 'none'}"], {}, "is not a folder"),
        ([f"--image={tmp_path / 'none.png'}"], {}, "none.png cannot be used (missing)"),
    ):
        assert explain(*arguments, **options) == 2, message
        assert message in capsys.readouterr().err


def test_attention_colours_where_it_is():
    image = np.full((32, 32, 3), 255, np.uint8)
    attention = np.zeros((4, 4), np.float32)
    attention[0, 3] = 0.2
    shown = np.array(heat(image, attention, 0.2, side=64), int)
    assert shown.shape == (64, 64, 3)
    red = shown[..., 0] - shown[..., 2]
    assert red[4:12, 52:60].min() > 50 and not red[40:, :24].any()  # beyond the reach of the cubic filter
    np.testing.assert_array_equal(np.array(heat(image, attention, 0.0)), image)  # nothing to show
    half = np.array(heat(image, attention, 0.4, side=64), int)
    assert half[8, 56].sum() > shown[8, 56].sum()  # lighter: half of the scale


def test_a_picture_without_what_was_never_learned():
    image = np.zeros((16, 16, 3), np.uint8)
    bare = Explanation(image, "$x$ " * 40, ["[CLS]"], None, [], None, None, -0.25, None, None, None, ("a note",))
    assert scores_line(bare) == "cosine -0.250 (-1 to 1; ranks first)"
    codes = TopCodes(np.array([3]), np.array([1.0], np.float32))
    maps = np.zeros((9, 2, 2), np.float32)
    full = Explanation(image, "w", ["[CLS]"], maps, ["w" * 60] * 9, maps, 0, 0.5, 0.75, codes, codes)
    assert "match probability 75.0 %" in scores_line(full)
    sizes = [Image.open(io.BytesIO(explanation_png(one))).size for one in (bare, full)]
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] < sizes[1][1]
