"""VQA in the paper's suite, from the builder to the table: training, the server's file, its figures, a row on `val`."""

import json

import pytest

pytest.importorskip("tensorflow")

from cbalign.__main__ import main
from cbalign.data.datasets.catalogue import prepare
from cbalign.data.datasets.official import miniature
from cbalign.experiments.gather import gather
from cbalign.experiments.suites import SUITES
from cbalign.runs.train import train_run
from tests.tiny import tiny_config


def vqa_config(data_dir, **changes):
    return tiny_config(
        **{
            "task": "vqa",
            "data__name": "vqa_v2",
            "data__dir": str(data_dir),
            "data__rand_augment": False,
            "optimizer__groups": ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0)),
            "vqa__answer_tokens": 5,
            "train__batch_size": 4,
            "train__steps": 1,
            "eval__splits": (),
            "eval__max_tokens": 10,
            **changes,
        }
    )


@pytest.mark.slow
def test_vqa_reaches_the_table_through_the_server(tmp_path, capsys):
    manual, runs = tmp_path / "manual", tmp_path / "runs"
    manual.mkdir()
    miniature.vqa(manual)
    miniature.write_json(manual / "answer_list.json", ["net", "yes", "10:30"])
    prepare("vqa_v2", str(tmp_path / "data"), manual_dir=str(manual))
    train_run(vqa_config(tmp_path / "data", data__train_split="train+val"), runs / "vqa")
    train_run(vqa_config(tmp_path / "data"), runs / "vqa_val")
    for row, split in (("vqa", "test"), ("vqa_val", "val")):
        assert main(["evaluate", f"--workdir={runs / row}", f"--split={split}"]) == 0
    printed = capsys.readouterr().out
    assert "the answers of this split are not public" in printed
    # The file for the server: every question of the split, with one of the listed answers, as its rules ask.
    (file,) = (runs / "vqa" / "metrics").glob("*_answers.json")
    (answer,) = json.loads(file.read_text())
    assert answer["question_id"] == 1000 and answer["answer"] in ("net", "yes", "10:30")
    val = json.loads(next((runs / "vqa_val" / "metrics").glob("vqa_vqa_v2_val.json")).read_text())
    assert main(["tables", "--suite=paper", f"--runs={runs}", "--result=vqa.test-dev=73.2"]) == 0
    table = capsys.readouterr().out.split("## VQA, NLVR2, SNLI-VE")[1]
    ours = next(line for line in table.splitlines() if line.startswith("| CODIS 4M, ours"))
    assert ours.split("|")[2].strip() == "73.2" and ours.split("|")[3].strip() == "–"
    assert ours.split("|")[4].strip() == f"{val['accuracy']['overall']:.1f}"
    gathered = {table.table.name: table for table in gather(SUITES["paper"], runs)}["understanding"]
    states = {row.row.name: row.state for line in gathered.lines for row in line.rows}
    assert states["vqa"] == states["vqa_val"] == "finished"
    # Nothing of the two rows is left to be run.
    commands = [command for line in gathered.lines for command in line.commands]
    assert commands and not any(f"{runs}/vqa " in c or f"{runs}/vqa_val " in c for c in commands)
