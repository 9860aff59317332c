"""`import cbalign`: what it offers, how soon, and its wrappers of training and evaluation."""

import pathlib
import shutil
import subprocess
import sys
import time

import pytest

import cbalign
from tests.tiny import tiny_config


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_is_quick_and_brings_nothing():
    code = "import cbalign, sys; print(sorted({'jax', 'tensorflow', 'numpy', 'flax'} & set(sys.modules)))"

    def seconds(code):
        start = time.perf_counter()
        assert run(code).strip().endswith("[]")
        return time.perf_counter() - start

    bare = min(seconds("print([])") for _ in range(3))
    assert min(seconds(code) for _ in range(3)) - bare < 0.3


def test_what_is_offered_is_listed_and_found_without_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None; import cbalign\n"
        "for name in cbalign.__all__: assert name in dir(cbalign) and getattr(cbalign, name), name\n"
        "print(sorted(cbalign.__all__))"
    )
    assert run(code).strip() == "['Model', 'UserError', '__version__', 'evaluate', 'load', 'train']"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        cbalign.lode


def test_the_package_says_that_it_is_typed():
    assert (pathlib.Path(cbalign.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_train_and_evaluate_are_those_of_the_command_line(tiny_run, tfds_dir, tmp_path):
    config = tiny_config(data__dir=str(tfds_dir), data__rand_augment=False, data__second_view=False)
    outcome = cbalign.train(config, tmp_path / "run", overrides=("train.checkpoint_steps=2",))
    assert outcome.step == 4 and (tmp_path / "run/checkpoints/2").is_dir() and config.train.checkpoint_steps != 2
    shutil.copytree(tiny_run, tmp_path / "copy")
    result = cbalign.evaluate(tmp_path / "copy")
    assert result["split"] == "val" and pathlib.Path(result["file"]).is_file()
    from cbalign.runs.workdir import open_run

    again = cbalign.evaluate(open_run(tmp_path / "copy"), split="val", checkpoint="latest")
    assert again["split"] == "val" and again["contrastive"].keys() == result["contrastive"].keys()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda tmp: cbalign.train("no_such_config", tmp / "run"), "no_such_config"),
        (lambda tmp: cbalign.train(tiny_config(), tmp / "run", overrides=("train.stepz=2",)), "train.stepz"),
        (lambda tmp: cbalign.evaluate(tmp), "is not the folder of a run"),
        (lambda tmp: cbalign.load(tmp / "none"), "is not the folder of a run"),
    ],
)
def test_mistakes_are_user_errors(tmp_path, call, message):
    with pytest.raises(cbalign.UserError, match=message):
        call(tmp_path)
