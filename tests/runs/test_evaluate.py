"""Evaluation by another config than the run's: resolution, protocol, and what is told of a mismatch."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from cbalign.__main__ import main
from cbalign.config import load_config
from cbalign.data.datasets.folder import import_folder
from cbalign.errors import UserError
from cbalign.models.positions import resize_positions
from cbalign.runs.evaluate import evaluate_run, protocol_notes, with_settings
from cbalign.runs.workdir import Run, open_run
from tests.tiny import tiny_config

PAPER = pathlib.Path(__file__).parents[2] / "configs" / "paper"


@pytest.fixture(scope="module")
def opened(tiny_run):
    return open_run(tiny_run)


@pytest.fixture
def own_run(opened, tmp_path):
    """The run, with another place for its results."""
    run = Run(tmp_path, opened.config, opened.tokenizer, opened.task)
    run.params = opened.params
    return run


def zero_shot(tfds_dir, **changes):
    return tiny_config(
        **{
            "data__dir": str(tfds_dir),
            "data__image_size": 48,
            "eval__splits": ("test",),
            "eval__baselines": False,
            "eval__rerank_top_k": 5,
            "protocol__name": "zero-shot tiny",
            "protocol__data": "scenes/tiny",
            "protocol__image_size": 48,
            **changes,
        }
    )


def test_another_resolution_interpolates_the_positions_alone(opened, tfds_dir):
    params = opened.params()
    larger, changed = with_settings(opened, zero_shot(tfds_dir), params)
    assert larger.task.model.sizes.image_size == 48
    table = np.asarray(params["image_encoder"]["position_embedding"])
    np.testing.assert_array_equal(changed["image_encoder"]["position_embedding"], resize_positions(table, 6))
    same = {**changed, "image_encoder": {**changed["image_encoder"], "position_embedding": table}}
    jax.tree.map(np.testing.assert_array_equal, same, dict(params))
    wrong = zero_shot(tfds_dir, data__image_size=48).unlock()
    wrong.data.image_size = 50
    with pytest.raises(UserError, match="not a multiple of the run's model.patch_size=8; use 48"):
        with_settings(opened, wrong, params)
    assert with_settings(opened, tiny_config(), params)[1] is params


def test_a_config_to_evaluate_by_is_recorded(own_run, tfds_dir):
    result = evaluate_run(own_run, "test", settings=zero_shot(tfds_dir))
    stored = json.loads((own_run.workdir / "metrics" / "retrieval_scenes_tiny_test_zero-shot_tiny.json").read_text())
    assert stored == {name: value for name, value in result.items() if name != "file"}
    assert stored["image_size"] == 48 and stored["rerank_top_k"] == 5
    assert stored["trained"] == {"task": "pretrain", "data": "scenes/tiny", "image_size": 32}
    assert stored["protocol"]["name"] == "zero-shot tiny"
    assert not [note for note in stored["notes"] if "zero-shot tiny" in note]
    own = evaluate_run(own_run, "test")
    assert own["image_size"] == 32 and own["protocol"] is None and own["file"] != result["file"]


def test_baselines_learn_where_the_run_was_trained(own_run, tmp_path):
    """The settings' data folder is that of the evaluation, and holds no training split."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = [(f"{name}.png", f"a {name} circle") for name in ("red", "green", "blue", "white")]
    for name, text in rows:
        Image.new("RGB", (40, 40), text.split()[1]).save(photos / name)
    captions = tmp_path / "captions.csv"
    captions.write_text("image,caption\n" + "".join(f"{name},{text}\n" for name, text in rows))
    import_folder(photos, captions, tmp_path / "colours", test=1.0)
    settings = zero_shot(tmp_path / "nothing", eval__baselines=True, eval__rerank_top_k=2)
    result = evaluate_run(own_run, "test", data=str(tmp_path / "colours"), settings=settings)
    assert result["baselines"]["bag_of_words"] and result["baselines"]["pixel_nearest_neighbour"] is None


def test_what_differs_from_a_protocol_is_told(tfds_dir):
    coco = load_config(str(PAPER / "retrieval_coco.py"))
    pretrained = tiny_config(task="pretrain")
    flickr = load_config(str(PAPER / "zero_shot_flickr.py"))
    assert protocol_notes(flickr, coco, data="flickr30k_karpathy") == []
    (note,) = protocol_notes(flickr, pretrained, data="flickr30k_karpathy")
    assert "uses the weights of a retrieval run on coco_karpathy; these are from a pretrain run on scenes/tiny" in note
    (note,) = protocol_notes(flickr, load_config(str(PAPER / "retrieval_flickr.py")), data="flickr30k_karpathy")
    assert "on coco_karpathy; these are from a retrieval run on flickr30k_karpathy" in note
    (note,) = protocol_notes(flickr, coco, data="coco_karpathy")
    assert note == "zero-shot Flickr30K 1K is defined on flickr30k_karpathy; this is coco_karpathy"

    zero_shot_coco = load_config(str(PAPER / "zero_shot_coco.py"))
    assert protocol_notes(zero_shot_coco, pretrained, data="coco_karpathy") == []
    smaller = load_config(str(PAPER / "zero_shot_coco.py"), ["data.image_size=256"])
    assert protocol_notes(smaller, pretrained, data="coco_karpathy") == [
        "zero-shot COCO 5K uses images of 384 px; these have 256"
    ]
    (note,) = protocol_notes(zero_shot_coco, coco, data="coco_karpathy")
    assert "uses the weights of a pretrain run; these are from a retrieval run on coco_karpathy" in note


@pytest.mark.parametrize(
    "name, top_k, data",
    [
        ("retrieval_coco", 256, "coco_karpathy"),
        ("zero_shot_coco", 256, "coco_karpathy"),
        ("retrieval_flickr", 128, "flickr30k_karpathy"),
        ("zero_shot_flickr", 128, "flickr30k_karpathy"),
    ],
)
def test_paper_configs_follow_their_protocol(name, top_k, data):
    c = load_config(str(PAPER / f"{name}.py"))
    assert (c.eval.rerank_top_k, c.data.name, c.protocol.data, c.data.image_size) == (top_k, data, data, 384)
    assert c.protocol.image_size == 384 and c.data.max_tokens == 30


def test_command_evaluates_by_a_config(tiny_run, tfds_dir, tmp_path, capsys):
    path = tmp_path / "zero_shot.py"
    path.write_text(
        "from tests.runs.test_evaluate import zero_shot\ndef get_config():\n"
        f"    return zero_shot({str(tfds_dir)!r}, protocol__task='retrieval', protocol__trained_on='elsewhere')\n"
    )
    assert main(["evaluate", f"--workdir={tiny_run}", f"--config={path}", "--config.eval.rerank_top_k=7"]) == 0
    out = capsys.readouterr().out
    assert "note: zero-shot tiny uses the weights of a retrieval run on elsewhere" in out
    assert json.loads(pathlib.Path(out.split("written to ")[1].strip()).read_text())["rerank_top_k"] == 7
    for arguments, message in (
        (["--config.data.image_size=48"], "add --config=NAME"),
        ([f"--config={tmp_path / 'none.py'}"], "no config file"),
        ([f"--config={path}", "--config.data.max_tokens=13", "--config.model.max_positions=13"], "max_positions=12"),
    ):
        assert main(["evaluate", f"--workdir={tiny_run}", *arguments]) == 2
        assert message in capsys.readouterr().err
