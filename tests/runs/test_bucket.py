"""A workdir in a bucket: all of a run's files but the checkpoints, whose way there is Orbax's own."""

import json

import pytest
from etils import epath

from cbalign.cli import evaluate as evaluate_command
from cbalign.data import text
from cbalign.experiments.run_status import FINISHED, read_run
from cbalign.report.history import read_history
from cbalign.runs import provenance
from cbalign.runs import train as runs_train
from cbalign.runs.train import train_run
from cbalign.training import checkpoints as training_checkpoints
from cbalign.training.checkpoints import Checkpoints
from tests.tiny import tiny_config
from tests.training.bucket import make_bucket


def test_a_vocabulary_is_written_and_read_there(tmp_path, monkeypatch):
    bucket = make_bucket(tmp_path, monkeypatch)
    count = text.train_vocabulary(["a red circle", "a blue star"], "gs://b/v/vocab.txt", size=60)
    assert len((tmp_path / "b/v/vocab.txt").read_text().splitlines()) == count
    assert len(text.load_tokenizer("gs://b/v/vocab.txt")) == len(text.load_tokenizer("gs://b/v")) == count
    assert [path.name for path in (tmp_path / "b/v").iterdir()] == ["vocab.txt"] and bucket.names
    with pytest.raises(Exception, match="no vocab.txt"):
        text.load_tokenizer("gs://b")


@pytest.mark.slow
def test_a_run_lives_there(tmp_path, tmp_path_factory, tfds_dir, monkeypatch, capsys):
    make_bucket(tmp_path / "cloud", monkeypatch)
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    for module in (runs_train, training_checkpoints):
        monkeypatch.setattr(
            module,
            "Checkpoints",
            lambda directory, **options: Checkpoints(checkpoints / str(directory).removeprefix("gs://"), **options),
        )
    config = tiny_config(
        data__dir=str(tfds_dir),
        data__rand_augment=False,
        data__second_view=False,
        loss_weights__itm=0.0,
        loss_weights__mlm=0.0,
        train__log_steps=1,
        train__checkpoint_steps=2,
    )
    workdir = "gs://bucket/runs/tiny"
    assert train_run(config, workdir).step == 4
    folder = tmp_path / "cloud/bucket/runs/tiny"
    assert {"config.json", "vocab.txt", "train.log", "metrics.jsonl", "losses.json", "run.json"} <= {
        path.name for path in folder.iterdir()
    }
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4] and "step 4/4" in (folder / "train.log").read_text()
    (events,) = (folder / "tensorboard").iterdir()
    assert events.stat().st_size > 1000

    # Opened again, it is found finished, and evaluated.
    assert train_run(config, workdir).step == 4
    assert read_run(workdir).status == FINISHED and read_history(epath.Path(workdir)).last_step == 4
    assert provenance.read(epath.Path(workdir))["end"]["status"] == "finished"
    from cbalign.__main__ import main

    assert main(["evaluate", f"--workdir={workdir}", "--split=val"]) == 0
    assert "retrieval_scenes_tiny_val.json" in capsys.readouterr().out and evaluate_command.HELP
    assert (folder / "metrics/retrieval_scenes_tiny_val.json").exists()
