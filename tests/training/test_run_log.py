"""The files of a run log, in a local folder and in a bucket."""

import json

import pytest
import tensorflow as tf
from tensorboardX import record_writer

from cbalign.training.run_log import RunLog
from tests.training.bucket import make_bucket


@pytest.fixture
def factories(monkeypatch):
    """tensorboardX's global table of writers, restored afterwards."""
    table = {"gs": "tensorboardX's own", "s3": "another"}
    monkeypatch.setattr(record_writer, "REGISTERED_FACTORIES", table)
    return table


def write_some(workdir):
    log = RunLog(workdir, start_step=0, steps=4, steps_per_epoch=2)
    log.log("a message")
    log.write_training(2, {"loss": 1.5, "bad": float("nan")})
    log.close()


def check(folder):
    assert "a message" in (folder / "train.log").read_text()
    (line,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert line["step"] == 2 and line["train/loss"] == 1.5 and line["train/bad"] is None
    assert json.loads((folder / "losses.json").read_text())["epochs"][0]["means"]["loss"] == 1.5
    (events,) = (folder / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes() and b"train/bad" not in events.read_bytes()
    assert not list(folder.glob(".*partial"))


def test_a_local_log_leaves_the_table_of_writers_alone(tmp_path, factories):
    write_some(tmp_path)
    check(tmp_path)
    assert factories == {"gs": "tensorboardX's own", "s3": "another"}


def test_a_log_in_a_bucket(tmp_path, monkeypatch, factories):
    make_bucket(tmp_path, monkeypatch)
    write_some("gs://bucket/run")
    check(tmp_path / "bucket" / "run")
    assert factories["gs"] != "tensorboardX's own" and factories["s3"] == "another"


def test_lines_after_the_start_are_dropped(tmp_path):
    lines = [json.dumps({"step": step, "train/loss": 1.0}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 2, "tr']))
    RunLog(tmp_path, start_step=2, steps=4, steps_per_epoch=2).close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:2]


def test_an_inactive_log_writes_nothing(tmp_path):
    log = RunLog(tmp_path, start_step=0, steps=4, steps_per_epoch=2, active=False)
    log.log("a message")
    log.write(1, {"loss": 1.0})
    log.write_training(1, {"loss": 1.0})
    log.advance(1)
    log.close()
    assert not list(tmp_path.iterdir())


def test_tensorboards_own_reader_finds_the_values_and_the_restart(tmp_path):
    for start, step, recall in ((0, 3, 0.5), (3, 4, 0.75)):
        log = RunLog(tmp_path, start_step=start, steps=9, steps_per_epoch=2)
        log.write(step, {"val/recall": recall, "val/bad": float("nan")})
        log.close()
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.suffix)
    events = [event for path in files for event in tf.compat.v1.train.summary_iterator(str(path))]
    values = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert values == [(3, "val/recall", 0.5), (4, "val/recall", 0.75)]
    assert [event.step for event in events if event.HasField("session_log")] == [3]
