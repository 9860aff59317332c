"""A run's weights out, and into another run."""

import numpy as np
import pytest
import torch

from cbalign.__main__ import main
from cbalign.errors import UserError
from cbalign.runs.export import export_run
from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run, run_arrays
from cbalign.weights.checkpoint_files import read_checkpoint
from cbalign.weights.convert import match_checkpoint
from cbalign.weights.weights_folder import read_weights
from tests.peers.albef import Albef
from tests.tiny import STILL, tiny_config
from tests.weights.models import assert_same


def test_safetensors_hold_student_and_teacher(tiny_run, tmp_path, capsys):
    assert main(["export", f"--workdir={tiny_run}", f"--out={tmp_path / 'out'}", "--checkpoint=4"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out")]
    run, read = open_run(tiny_run), read_weights(tmp_path / "out")
    assert_same(read.arrays, run_arrays(run, checkpoint="4"))
    assert read.info["config"]["model"]["text_width"] == 32 and read.info["image_size"] == 32
    assert str(tiny_run.parent) not in (tmp_path / "out" / "weights.json").read_text()
    assert (tmp_path / "out" / "vocab.txt").read_text() == (tiny_run / "vocab.txt").read_text()
    student = run.params(checkpoint="4")
    np.testing.assert_array_equal(read.arrays["params/codebook/codes"], student["codebook"]["codes"])


def test_albefs_file_and_back(tiny_run, tmp_path):
    assert main(["export", f"--workdir={tiny_run}", f"--out={tmp_path / 'out'}", "--format=albef"]) == 0
    run = open_run(tiny_run)
    path = tmp_path / "out" / "albef.pth"
    Albef(run.task.model, queue_size=64).load_state_dict(torch.load(path, weights_only=True)["model"], strict=True)
    matched = match_checkpoint("albef", read_checkpoint(path).tensors, run.task.model, queue_size=64)
    assert_same(matched.arrays, run_arrays(run, queue=True))
    assert not matched.initialised


def test_places_that_are_none_are_named_before_any_work(tmp_path):
    with pytest.raises(UserError, match="nothing is neither a folder that .*weights.json.* nor that of a run"):
        train_run(tiny_config(data__dir=str(tmp_path), init__weights=(str(tmp_path / "nothing"),)), tmp_path / "run")
    with pytest.raises(UserError, match="init.checkpoint=.*nothing holds no checkpoint"):
        train_run(tiny_config(data__dir=str(tmp_path), init__checkpoint=str(tmp_path / "nothing")), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "workdir"])
def test_a_run_starts_from_another_ones_weights(tiny_run, tfds_dir, tmp_path, form):
    """At a learning rate of nothing, and a teacher that keeps what it has, a step leaves what was loaded."""
    source = open_run(tiny_run)
    path = tiny_run if form == "workdir" else export_run(source, tmp_path / "out")
    config = tiny_config(
        data__dir=str(tfds_dir),
        data__rand_augment=False,
        data__second_view=False,
        **STILL,
        seed=5,
        data__vocabulary=str(tiny_run / "vocab.txt"),
        init__weights=(str(path),),
        eval__splits=(),
    )
    train_run(config, tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"3. init.weights     {path}  <- taken" in log
    assert_same(run_arrays(open_run(tmp_path / "run")), run_arrays(source))
