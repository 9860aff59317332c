"""Runs of the tasks after pretraining, from the tiny pretrained run: train, resume, evaluate, predict, refuse."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cbalign.__main__ import main
from cbalign.errors import UserError
from cbalign.evaluation.result_table import format_result
from cbalign.inference import predictor
from cbalign.runs.evaluate import evaluate_run
from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run
from cbalign.tasks.transfer import flatten, vocabulary_rows
from tests.tiny import tiny_config

GROUPS = ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))
DATA = {
    "vqa": "scenes_vqa/tiny",
    "nlvr2": "scenes_nlvr2/tiny",
    "snli_ve": "scenes_ve/tiny",
    "nlvr2_pretrain": "scenes/tiny",
}


def task_config(task, tfds_dir, start, **changes):
    return tiny_config(
        **{
            "task": task,
            "data__name": DATA[task],
            "data__dir": str(tfds_dir),
            "data__rand_augment": False,
            "data__second_view": False,
            "data__vocabulary_size": 260,
            "init__weights": (str(start),) if start else (),
            "optimizer__groups": GROUPS,
            "vqa__answer_tokens": 5,
            "vqa__rank_top_k": 4,
            "train__batch_size": 16,
            "train__steps": 4,
            "train__log_steps": 2,
            "train__checkpoint_steps": 2,
            "eval__splits": (),
            **changes,
        }
    )


def test_new_words_start_from_their_pieces():
    theirs = ["[PAD]", "[UNK]", "what", "##ever", "co", "##l"]
    rows = vocabulary_rows([*theirs, "whatever", "col", "zebra"], theirs)
    np.testing.assert_array_equal(rows[:6], np.eye(6))
    np.testing.assert_array_equal(rows[6:], [[0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0.5, 0.5], [0, 1, 0, 0, 0, 0]])


@pytest.mark.slow
def test_a_task_starts_from_the_tasks_that_lead_to_it(tiny_run, tfds_dir, tmp_path):
    with pytest.raises(UserError, match="neither"):
        train_run(task_config("vqa", tfds_dir, tmp_path / "nothing"), tmp_path / "a")
    with pytest.raises(UserError, match="both hold"):
        train_run(task_config("vqa", tfds_dir, None, init__weights=(str(tiny_run),) * 2), tmp_path / "b")


def test_heads_that_were_never_trained_are_refused(tiny_run, tmp_path, capsys):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    assert main(["predict", f"--workdir={tiny_run}", "--task=vqa", f"--image={tmp_path / 'red.png'}", "what?"]) == 2
    assert "never trained" in capsys.readouterr().err
    with pytest.raises(UserError, match="of pretrain: its head for snli_ve was never trained"):
        predictor.Predictor(open_run(tiny_run), task="snli_ve")


def test_match(tiny_run, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    command = ["predict", f"--workdir={tiny_run}", "--task=match", f"--image={tmp_path / 'red.png'}"]
    assert main([*command, "--json", "a red circle"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert {a["answer"] for a in answers} == {"match", "no match"}
    assert sum(a["probability"] for a in answers) == pytest.approx(1, abs=1e-5)
    for wrong, message in (
        ([*command, f"--image={tmp_path / 'red.png'}", "a red circle"], "looks at 1 image"),
        ([*command, ""], "no word"),
        ([*command[:-1], f"--image={tmp_path / 'no.png'}", "a"], "missing"),
    ):
        assert main(wrong) == 2 and message in capsys.readouterr().err


def train_vqa(made_once, tiny_run, tfds_dir):
    """The workdir of a run of VQA that starts from the tiny run; to be copied."""
    config = task_config("vqa", tfds_dir, tiny_run, eval__splits=("val",), eval__best_split="val")
    return made_once("vqa", lambda workdir: train_run(config, workdir))


@pytest.mark.slow
def test_vqa_from_pretraining_to_predictions(made_once, tiny_run, tfds_dir, tmp_path, capsys):
    vqa_run = shutil.copytree(train_vqa(made_once, tiny_run, tfds_dir), tmp_path / "run")
    run = open_run(vqa_run)
    words, old = (vqa_run / "vocab.txt").read_text().splitlines(), run.config.init.weights[0]
    assert "colour" in words and words[:40] == open(f"{old}/vocab.txt").read().splitlines()[:40]
    result = evaluate_run(run, "test")
    assert result["questions"] == 128 and 0 <= result["accuracy"]["overall"] <= 100
    assert set(result["accuracy"]) == {"overall", "yes/no", "number", "other"}
    assert "blind guess" in format_result(result)
    stored = json.loads(open(result["file"]).read())
    assert stored["accuracy"] == result["accuracy"] and stored["task"] == "vqa"
    answers = json.loads(open(result["file"].replace(".json", "_answers.json")).read())
    assert len(answers) == 128 and set(answers[0]) == {"question_id", "answer"}
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    capsys.readouterr()  # of the training, where this process was the one to do it
    assert (
        main(
            [
                "predict",
                f"--workdir={vqa_run}",
                "--task=vqa",
                f"--image={tmp_path / 'red.png'}",
                "--top=3",
                "what colour is the circle?",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    shares = [float(line.split("%")[0]) for line in lines]
    assert len(lines) == 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 100.1


@pytest.mark.slow
def test_what_training_starts_with_is_the_pretrained_model(tiny_run, tfds_dir, tmp_path):
    """At a learning rate of zero the first checkpoint holds the pretrained towers and the decoder made of them."""
    workdir = tmp_path / "still"
    train_run(
        task_config(
            "vqa",
            tfds_dir,
            tiny_run,
            optimizer__learning_rate=1e-30,
            optimizer__weight_decay=0.0,
            optimizer__final_learning_rate=0.0,
            optimizer__warmup_learning_rate=0.0,
            train__steps=1,
        ),
        workdir,
    )
    before, after = (flatten(open_run(path).params()) for path in (tiny_run, workdir))
    for ours, theirs in (
        ("image_encoder/cls_token",) * 2,
        ("answer_layers/layer_0/mlp/output/kernel", "fusion_encoder/layer_0/mlp/output/kernel"),
    ):
        np.testing.assert_array_equal(after[ours], before[theirs])
    known = len(before["masked_token_head/bias"])
    np.testing.assert_allclose(after["answer_head/bias"][:known], before["masked_token_head/bias"], atol=1e-7)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tiny_run, tfds_dir, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = task_config("snli_ve", tfds_dir, tiny_run)
    train_run(config, whole)
    # As a kill between steps 2 and 4 leaves it.
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")
    train_run(config, parts)
    a, b = (flatten(open_run(path).params(checkpoint="latest")) for path in (whole, parts))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.slow
def test_text_assignment_leads_to_nlvr2(tiny_run, tfds_dir, tmp_path, capsys):
    first, second = tmp_path / "assignment", tmp_path / "nlvr2"
    train_run(task_config("nlvr2_pretrain", tfds_dir, tiny_run, contrast__alpha=0.0, eval__splits=("val",)), first)
    result = evaluate_run(open_run(first), "val")
    assert result["captions"] == 64 and set(result["accuracy"]) == {"overall", "first", "second", "neither"}
    train_run(task_config("nlvr2", tfds_dir, first), second)
    result = evaluate_run(open_run(second), "val")
    assert set(result["accuracy"]) == {"overall", "false", "true", "consistency"}
    assert result["accuracy"]["consistency"] <= result["accuracy"]["overall"]
    assert np.sum(result["confusion"]) == result["sentences"] == 128
    with pytest.raises(UserError, match="was trained for nlvr2; vqa starts from"):
        train_run(task_config("vqa", tfds_dir, second), tmp_path / "wrong")
    for shade in ("red", "blue"):
        Image.new("RGB", (32, 32), shade).save(tmp_path / f"{shade}.png")
    capsys.readouterr()
    assert (
        main(
            [
                "predict",
                f"--workdir={second}",
                "--task=nlvr2",
                f"--image={tmp_path / 'red.png'}",
                f"--image={tmp_path / 'blue.png'}",
                "both pictures show a star",
            ]
        )
        == 0
    )
    assert {line.split()[-1] for line in capsys.readouterr().out.splitlines()} == {"true", "false"}
