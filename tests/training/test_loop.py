"""The loop: what stops a run, and what it leaves."""

import json
import re
from unittest import mock

import jax
import pytest

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.runs.train import train_run
from cbalign.tasks import TASKS
from cbalign.training.loop import Loop, Schedule
from tests.tiny import tiny_config


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(tmp_path, tfds_dir):
    # The rate grows from nothing to absurd, so that the first steps are good and are saved.
    config = tiny_config(
        data__dir=str(tfds_dir),
        train__steps=40,
        train__log_steps=1,
        train__checkpoint_steps=1,
        eval__splits=(),
        loss_weights__itm=0.0,
        loss_weights__mlm=0.0,
        optimizer__learning_rate=1e25,
        optimizer__warmup_learning_rate=0.0,
        optimizer__warmup_steps=39,
    )
    with pytest.raises(UserError) as caught:
        train_run(config, tmp_path / "run")
    message = str(caught.value)
    assert "not finite at step" in message and "ica" in message and "\n" not in message
    step = int(message.split("not finite at step ")[1].split(maxsplit=1)[0])
    assert f"checkpoints/{step - 1}" in message
    assert (tmp_path / "run" / "checkpoints" / str(step - 1)).is_dir()


def test_a_run_leaves_what_others_can_read(tiny_run):
    rows = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    training = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in training] == [1, 2, 3, 4]
    wanted = {
        "i2t",
        "t2i",
        "i2i",
        "t2t",
        "ot",
        "i2p",
        "t2p",
        "itm",
        "mlm",
        "temperature",
        "alpha",
        "learning_rate",
        "queue_fill",
        "assignment_entropy",
        "codes_used",
        "marginal_error",
        "pairs_per_second",
        "gradient_norm",
    }
    assert wanted <= {name.removeprefix("train/") for name in training[0]}
    assert training[-1]["train/queue_fill"] == 1.0  # 4 steps of 16 pairs into 64 slots
    assert any("val/contrastive/tr@1" in row for row in rows)
    assert json.loads((tiny_run / "config.json").read_text())["train"]["steps"] == 4
    assert list((tiny_run / "tensorboard").glob("events.*"))
    log = (tiny_run / "train.log").read_text()
    assert re.search(r"4\. scratch +<- taken", log) and "chance levels" in log and "parameter group" in log


def test_few_steps_wait_on_the_devices(monkeypatch, tmp_path):
    """Else a signal would wait for all steps up to the next log line, and a batch would be held for each."""
    finished, waiting = 0, []

    def train_step(step, batch):
        waiting.append(step - finished)
        return step + 1, {"step": step + 1}

    def wait(metrics):
        nonlocal finished
        finished = metrics["step"]

    monkeypatch.setattr(jax, "block_until_ready", wait)
    monkeypatch.setattr(devices, "must_wait", lambda: False)
    monkeypatch.setattr(devices, "feed", lambda batch: batch)
    checkpoints, log, signals = (mock.Mock() for _ in range(3))
    signals.agreed.return_value = False
    monkeypatch.setattr(Loop, "_log_metrics", lambda *arguments: None)
    loop = Loop(train_step, Schedule(40, 40, 20, 40), 1, checkpoints, log, signals, evaluate=None, headline=dict)
    loop.run(0, 0, lambda start: iter([{} for _ in range(40)]))
    assert len(waiting) == 40 and max(waiting) == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(train__batch_size=1, queue__size=64, itm__group_size=2), "use 1"),
        (dict(train__batch_size=16, itm__group_size=5), "does not divide train.batch_size=16; use 4"),
        (dict(train__batch_size=16, itm__group_size=64), "does not divide train.batch_size=16; use 16"),
    ],
)
def test_batches_that_do_not_fit_the_devices_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        TASKS["pretrain"].check(tiny_config(**changes))
