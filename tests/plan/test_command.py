"""`cbalign plan`: on the CPU's compiler, and on the TPU's for the paper's own configs."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from cbalign.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]

TINY = """
from cbalign.config import derived_from

def get_config():
    c = derived_from({file!r}, "emoji_scratch.py")
    c.data.vocabulary_size, c.codebook.num_codes, c.codebook.iterations = 200, 32, 3
    c.model.image_depth = c.model.text_depth = 1
    c.train.batch_size, c.itm.group_size = 16, 8
    return c
"""


def plan(*arguments, timeout=600):
    return subprocess.run(
        [sys.executable, "-m", "cbalign", "plan", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "XLA_FLAGS": ""},
    )


@pytest.fixture
def tiny_file(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(TINY.format(file=str(ROOT / "configs/emoji_scratch.py")))
    return file


@pytest.mark.slow
def test_gpus_by_the_cpus_compiler_and_from_the_cache(tiny_file, tmp_path):
    command = (
        f"--config={tiny_file}",
        "--topology=H200:1",
        "--topology=A100:2",
        f"--json={tmp_path / 'plan.json'}",
        f"--cache={tmp_path / 'cache'}",
    )
    done = plan(*command)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "plan.json").read_text())
    one, two = content["topologies"]
    assert (one["topology"], two["topology"]) == ("H200:1", "A100:2") and content["chip_hours"] == one["chip_hours"]
    assert one["collectives"] == [] and two["collectives"]
    assert one["pairs_per_device"] == 16 and two["pairs_per_device"] == 8
    # Nearly all work halves, the transport's too, whose rows are shared.
    assert 0.49 <= two["flops"] / one["flops"] < 0.8
    # The gradient of every parameter is summed over both devices, in float32.
    reduced = sum(c["bytes"] * c["count"] for c in two["collectives"] if c["kind"] == "all-reduce")
    assert reduced >= 4 * 500_000
    assert "about" in done.stdout and "chip-hours" in done.stdout
    again = plan(*command)
    assert again.stdout.count("cached") == 2, again.stdout


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--topology=v9-8"], "chips are"),
        (["--topology=H200:1", "--utilisation=40"], "--utilisation=40.0"),
        (["--topology=H200:1", "--pairs=0"], "--pairs=0"),
        (["--topology=H200:1", "--json=/no/such/folder/p.json"], "no folder"),
        (["--topology=H200:3"], "does not divide over 3 devices"),
        (
            ["--topology=H200:1", "--config.train.steps=0", "--config.train.epochs=2"],
            "give the samples in one with --pairs",
        ),
    ],
)
def test_mistakes_end_in_one_line(flags, told, capsys):
    assert main(["plan", f"--config={ROOT / 'configs/emoji_scratch.py'}", "--cache=", *flags]) == 2
    assert told in capsys.readouterr().err


def test_without_libtpu_the_plan_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert main(["plan", f"--config={ROOT / 'configs/paper/pretrain.py'}", "--topology=v4-8"]) == 2
    assert "pip install 'libtpu==" in capsys.readouterr().err


def tpu_plan(tmp_path, *arguments):
    """The one plan of a command for a TPU."""
    pytest.importorskip("libtpu")
    done = plan(*arguments, f"--json={tmp_path / 'plan.json'}", "--cache=", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "plan.json").read_text())["topologies"]
    assert found["fits"] and found["exact"] and found["peak_bytes"] < found["memory_bytes"]
    assert found["step_seconds"] >= max(found["matmul_floor_seconds"], found["memory_floor_seconds"])
    return found


def assert_estimated(found):
    """The time is the compiler's estimate, and every part of the method shows in it."""
    profile = found["profile"]
    assert found["basis"] == "the compiler's estimate" and found["step_seconds"] == profile["seconds"]
    assert profile["unestimated"] < 0.05 and profile["unknown_loops"] == 0
    classes = profile["classes"]
    assert sum(classes.values()) == pytest.approx(profile["seconds"], rel=1e-3)
    assert {"transport", "optimizer and teacher average", "losses and heads", "random bits", "collectives"} <= set(
        classes
    )


@pytest.mark.slow
def test_a_small_step_by_the_tpus_compiler(tiny_file, tmp_path):
    found = tpu_plan(tmp_path, f"--config={tiny_file}", "--topology=v3-8", "--quick")
    # A quick plan has no estimate of the compiler to rest on, and a step so small waits for the memory.
    assert found["profile"] is None and found["basis"] == "bytes at the memory's bandwidth"
    assert found["step_seconds"] == found["memory_floor_seconds"] > found["matmul_floor_seconds"] > 0
    # Parameters, the optimizer's two moments and the teacher, of float32, on every chip.
    assert found["argument_bytes"] > 4 * 4 * 500_000


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("topology, flags", [("v3-8", ["--quick"]), ("v4-8", [])])
def test_the_papers_pretraining(tmp_path, topology, flags):
    found = tpu_plan(tmp_path, "--config=configs/paper/pretrain.py", f"--topology={topology}", *flags)
    # Parameters, the optimizer's two moments, the teacher and the queues, all of float32, are 2.5 GiB at least.
    assert found["argument_bytes"] > 2.5 * 2**30
    if flags:
        assert found["profile"] is None and found["basis"].startswith("assumed")
        return
    assert_estimated(found)
    # The encoders' products and attention are most of it.
    classes, seconds = found["profile"]["classes"], found["profile"]["seconds"]
    assert sum(classes[name] for name in ("attention", "projections of attention", "MLPs")) > seconds / 2
    assert classes.get("other", 0.0) < seconds / 50
