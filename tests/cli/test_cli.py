"""The command line as a person meets it: help, and one clear line for each mistake before anything is trained."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from cbalign.__main__ import COMMANDS, keep_to_present_hardware, main
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]


def call(capsys, *arguments):
    """Code of exit, standard output, standard error."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(capsys, command):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0 and f"cbalign {command}" in out


def test_help_is_quick_and_needs_no_heavy_library():
    code = (
        "import sys; from cbalign.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'jax', 'torch', 'transformers'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "command",
    [
        "train --config=emoji --workdir=",
        "rehearse prepare --out=",
        "data import --images= --captions=a.csv --out=b",
        "search --weights= truck",
        "report --compare a ",
        "plan --config= --topology=v4-8",
    ],
)
def test_an_empty_folder_or_file_is_not_the_current_one(capsys, tmp_path, monkeypatch, command):
    """As from an unset variable of a shell."""
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *command.split(" "))
    assert code == 2 and err.splitlines()[-1].endswith(" is empty; name a file or a folder")
    assert not list(tmp_path.iterdir())


def test_models_losses_training_tasks_do_without_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import cbalign.models.alignment, cbalign.training.loop, cbalign.tasks.pretrain, cbalign.losses.transport\n"
        "import cbalign.evaluation.retrieval, cbalign.bench.step"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture
def config_file(tmp_path, tfds_dir):
    path = tmp_path / "tiny.py"
    path.write_text(
        f"from tests.tiny import tiny_config\ndef get_config():\n    return tiny_config(data__dir={str(tfds_dir)!r})\n"
    )
    return path


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--config=none.py", "--workdir=W"], "no config file none.py"),
        (["train", "--config=CONFIG", "--workdir=W", "--config.train.stesp=3"], "did you mean 'train.steps'"),
        (["train", "--config=CONFIG", "--workdir=W", "--config.train.steps=x"], "expected int"),
        (["train", "--config=CONFIG", "--workdir=W", "--config.data.name=nothing"], "nothing"),
        (["train", "--config=CONFIG", "--workdir=W", "--config.data.train_split=other"], "no split other"),
        (["train", "--config=CONFIG", "--workdir=W", "--config.data.vocabulary=/no/vocab.txt"], "/no/vocab.txt"),
        (
            ["train", "--config=CONFIG", "--workdir=W", "--config.train.batch_size=512", "--config.queue.size=512"],
            "512",
        ),
        (["train", "--config=CONFIG", "--workdir=FULL"], "is not the folder of a run"),
        (["train", "--config=CONFIG", "--workdir=FILE"], "is a file"),
        (["evaluate", "--workdir=W"], "no config.json"),
        (["bench", "step", "--config=CONFIG", "--repeats=0"], "--repeats=0"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(capsys, tmp_path, config_file, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("mine")
    (tmp_path / "a_file").write_text("mine")
    for word, value in (
        ("CONFIG", config_file),
        ("FULL", tmp_path / "full"),
        ("FILE", tmp_path / "a_file"),
        ("=W", f"={tmp_path / 'work'}"),
    ):
        arguments = [a.replace(word, str(value)) for a in arguments]
    code, _, err = call(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("cbalign: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0], err
    assert "Traceback" not in err


def test_unknown_arguments_are_named(capsys):
    code, _, err = call(capsys, "train", "--config=a", "--workdir=b", "--stpes=3")
    assert code == 2 and "--stpes=3" in err


def test_a_workdir_of_another_config_is_refused(capsys, tiny_run, tmp_path, tfds_dir):
    path = tmp_path / "changed.py"
    path.write_text(
        "from tests.tiny import tiny_config\ndef get_config():\n"
        f"    return tiny_config(data__dir={str(tfds_dir)!r}, optimizer__learning_rate=0.5)\n"
    )
    code, _, err = call(capsys, "train", f"--config={path}", f"--workdir={tiny_run}")
    assert code == 2 and "optimizer.learning_rate 0.001 -> 0.5" in err


def test_evaluate_prints_and_writes(capsys, tiny_run):
    import json

    code, out, err = call(capsys, "evaluate", f"--workdir={tiny_run}", "--split=test")
    assert code == 0, err
    result = json.loads((tiny_run / "metrics" / "retrieval_scenes_tiny_test.json").read_text())
    assert result["images"] == result["texts"] == 64 and result["split"] == "test"
    for kind in ("chance", "contrastive", "itm", "sum"):
        assert set(result[kind]) == {"tr@1", "tr@5", "tr@10", "ir@1", "ir@5", "ir@10"}
    assert result["chance"]["tr@1"] == pytest.approx(100 / 64)
    assert set(result["baselines"]) == {"pixel_nearest_neighbour", "bag_of_words"}
    assert "chance" in out and "contrastive" in out and "bag of words" in out


def test_evaluate_names_an_unknown_split(capsys, tiny_run):
    code, _, err = call(capsys, "evaluate", f"--workdir={tiny_run}", "--split=nope")
    assert code == 2 and "nope" in err and "test" in err


def test_tiny_config_is_a_config():
    assert tiny_config().train.steps == 4


@pytest.mark.parametrize(
    "present, plugins, platforms",
    [
        ((), ("libtpu",), "cpu"),
        (("/dev/nvidiactl",), ("libtpu", "jax_cuda12_plugin"), "cuda,cpu"),
        (("/dev/accel0",), ("libtpu",), None),
        (("/dev/vfio/0",), ("libtpu",), None),
        ((), (), None),
    ],
)
def test_a_tpu_that_is_not_there_is_not_looked_for(monkeypatch, present, plugins, platforms):
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in plugins else None)
    monkeypatch.setattr(pathlib.Path, "exists", lambda path: str(path) in present)
    keep_to_present_hardware()
    assert (os.environ["JAX_PLATFORMS"] or None) == platforms
