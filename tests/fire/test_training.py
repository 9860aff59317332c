"""A training run killed at any moment, or asked to stop, ends as one that was left alone."""

import collections
import functools
import itertools
import json
import os
import re
import signal

import pytest

from tests.fire import harness


def compiles(workdir):
    """Whether the log ends with the last line before the first step."""
    return "chance levels" in harness.text(workdir / "train.log").rstrip().rpartition("\n")[2]


def saves(workdir):
    """Whether a checkpoint is being written."""
    return any(".orbax-checkpoint-tmp" in name for name in os.listdir(workdir / "checkpoints"))


def evaluates(workdir):
    """Whether the last line is that of a step which is then saved and evaluated, or says that one is evaluated later."""
    last = harness.text(workdir / "train.log").rstrip().rpartition("\n")[2]
    step = re.search(r" step (\d+)/", last)
    return "evaluating it now" in last or bool(step and int(step[1]) % 4 == 0)


STAGES = {"compilation": (compiles, 10.0), "save": (saves, 0.05), "evaluation": (evaluates, 1.0)}
"""{name: (workdir -> whether a run is at it, about how many seconds it takes)}."""


def burn(whole, config_file, folder, kills):
    """Kills runs, every other at any moment, the rest within the `STAGES` in turn; restarts each until it finishes."""
    reference, seconds = whole
    done, number, fell = 0, 0, collections.Counter()
    moments, stages = harness.moments("train", seconds), itertools.cycle(["any", *STAGES, "any", "any"])
    while True:
        workdir = folder / f"run{number}"
        words = ("train", f"--config={config_file}", f"--workdir={workdir}")
        saved = (harness.complete_steps(workdir) or [0])[-1]
        said = harness.text(workdir / "train.log")

        def at(stage, folder=workdir, said=said):
            return harness.text(folder / "train.log") != said and harness.truth(STAGES[stage][0], folder)

        if done == kills:
            resumed, finished = harness.run(*words), True
        else:
            stage, share = next(stages), next(moments) / seconds
            once, length = (functools.partial(at, stage), STAGES[stage][1]) if stage in STAGES else (None, seconds)
            killed, resumed = harness.kill_at(share * length, *words, once=once)
            finished = not killed
        if saved and "own checkpoint" in resumed:  # else it was killed before it said where it starts
            assert f"own checkpoint   step {saved}" in resumed, resumed
        if finished:
            harness.assert_same_run(workdir, reference)
            number += 1
            if done == kills:
                print(f"{number} runs, {dict(fell)}", flush=True)
                return
            continue
        done += 1
        stages_hit = list(filter(at, STAGES)) or ["elsewhere"]
        fell.update(stages_hit)
        harness.assert_whole(workdir)
        assert not saved or harness.complete_steps(workdir)[-1] >= saved
        last = (resumed.strip().splitlines() or ["nothing printed"])[-1]
        print(f"{done}: at {', '.join(stages_hit)}; run {number}, resumed from {saved}: {last[:100]}", flush=True)


@pytest.mark.slow
def test_kill_9_at_random_moments(whole, config_file, tmp_path):
    burn(whole, config_file, tmp_path, harness.SCALE or 1)


@pytest.mark.long
def test_kill_9_at_fifty_random_moments(whole, config_file, tmp_path):
    burn(whole, config_file, tmp_path, harness.SCALE or 50)


@pytest.mark.slow
def test_sigterm_on_an_evaluation_step(whole, config_file, tmp_path):
    """Asked to stop while steps 4 and 8 are at work: each is saved, and evaluated by the next start."""
    workdir, stopped, said = tmp_path / "run", [], []
    words = ("train", f"--config={config_file}", f"--workdir={workdir}")
    for before in (3, 7):
        process = harness.start(*words)
        harness.wait_for_row(process, workdir, before)
        process.send_signal(signal.SIGTERM)
        code, out, error = harness.finish(process)
        assert code == 75 and not error, error
        stopped.append(json.loads((workdir / "run.json").read_text())["end"]["step"])
        assert harness.complete_steps(workdir)[-1] == stopped[-1]
        said.append(out)
    said.append(harness.run(*words))
    for step, after in zip(stopped, said[1:], strict=True):
        assert f"own checkpoint   step {step}" in after
        assert (f"step {step} was saved but not evaluated" in after) == (step % 4 == 0)
    assert any(step % 4 == 0 for step in stopped), f"stopped after {stopped}: no evaluation step; start the test again"
    harness.assert_same_run(workdir, whole[0])


@pytest.mark.slow
def test_a_second_training_in_the_folder_is_refused_and_harms_nothing(whole, config_file, tmp_path):
    workdir = tmp_path / "run"
    words = ("train", f"--config={config_file}", f"--workdir={workdir}")
    first = harness.start(*words)
    harness.wait_for_row(first, workdir, 1)
    first.send_signal(signal.SIGSTOP)  # until the second has had its say
    try:
        code, _, error = harness.finish(harness.start(*words))
    finally:
        first.send_signal(signal.SIGCONT)
    harness.assert_one_line(code, error, str(workdir), "another process is training")
    assert harness.finish(first)[0] == 0
    harness.assert_same_run(workdir, whole[0])
    assert len(json.loads((workdir / "run.json").read_text())["starts"]) == 1
