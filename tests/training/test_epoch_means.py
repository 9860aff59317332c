"""losses.json: means over epochs, whatever interrupted the run."""

import json

import numpy as np
import pytest

from cbalign.training.epoch_means import line_metrics, split_by_epoch
from cbalign.training.run_log import RunLog

STEPS, STEPS_PER_EPOCH = 23, 7


def rows(seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "loss": np.float32(rng.normal(5, 1)),
            "mlm": np.float32(rng.normal(2, 1)),
            "gradient_norm": np.float32(rng.uniform(0, 3)),
        }
        for _ in range(STEPS)
    ]


def log(workdir, *, start, stop, every, marks=()):
    """Writes what the loop would from step `start` to `stop`: a line at every multiple of `every` and at each mark."""
    everything, last = rows(), start
    writer = RunLog(workdir, start_step=start, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    for step in range(start + 1, stop + 1):
        if step % every == 0 or step == STEPS or step in marks:
            for end, part in split_by_epoch(everything[last:step], step, STEPS_PER_EPOCH):
                writer.write_training(end, line_metrics(part))
            writer.write(step, {"val/contrastive/tr@1": 3.0})
            last = step
    writer.close()


def losses(workdir):
    return json.loads((workdir / "losses.json").read_text())


@pytest.mark.parametrize("every", [1, 3, 5, 7, 50])
def test_means_are_those_of_the_steps_of_each_epoch(tmp_path, every):
    log(tmp_path, start=0, stop=STEPS, every=every)
    content = losses(tmp_path)
    assert content["steps_per_epoch"] == STEPS_PER_EPOCH
    assert [(epoch["epoch"], epoch["steps"]) for epoch in content["epochs"]] == [(1, 7), (2, 7), (3, 7), (4, 2)]
    for i, epoch in enumerate(content["epochs"]):
        part = rows()[i * STEPS_PER_EPOCH : (i + 1) * STEPS_PER_EPOCH]
        for name in ("loss", "mlm", "gradient_norm"):
            assert epoch["means"][name] == pytest.approx(np.mean([row[name] for row in part]), rel=1e-6)
        if every == 50:  # one line an epoch: the deviation is the sample's
            for name in ("loss", "gradient_norm"):
                wanted = np.std([row[name] for row in part], ddof=1)
                assert epoch["deviations"][name] == pytest.approx(wanted, rel=1e-5)


def test_an_interrupted_run_leaves_what_an_uninterrupted_one_does(tmp_path):
    log(tmp_path / "whole", start=0, stop=STEPS, every=4, marks=(10,))
    # Saved at step 10, killed at 19 while a line was written, started again from the checkpoint.
    log(tmp_path / "cut", start=0, stop=19, every=4, marks=(10,))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 19, "train/lo')
    log(tmp_path / "cut", start=10, stop=STEPS, every=4)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_line_has_the_spread_of_its_steps():
    line = line_metrics(rows())
    assert line["loss_deviation"] == pytest.approx(np.std([row["loss"] for row in rows()]), rel=1e-6)
    assert "mlm_deviation" not in line


def test_rows_are_cut_at_the_ends_of_epochs():
    parts = split_by_epoch(list("abcdefgh"), last_step=10, steps_per_epoch=4)
    assert parts == [(4, ["a", "b"]), (8, ["c", "d", "e", "f"]), (10, ["g", "h"])]


def test_a_trained_run_has_them(tiny_run):
    content = losses(tiny_run)
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    by_step = [line for line in lines if "train/loss" in line]
    size = content["steps_per_epoch"]
    for i, epoch in enumerate(content["epochs"]):
        part = [line["train/loss"] for line in by_step if (line["step"] - 1) // size == i]
        assert len(part) == epoch["steps"] and epoch["means"]["loss"] == pytest.approx(np.mean(part))
    assert {"i2t", "itm", "mlm", "ot", "gradient_norm"} <= set(content["epochs"][0]["means"])
