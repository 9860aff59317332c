"""The rehearsal's own reader: it passes what is right, and finds whatever is changed in one place."""

import json
import shutil

import pytest
from etils import epath

from cbalign.__main__ import main
from cbalign.config import load_config
from cbalign.data.datasets.catalogue import find_builder
from cbalign.errors import UserError
from cbalign.experiments import engine
from cbalign.experiments.rehearsal import official_folders
from cbalign.experiments.rehearsal.prepare import overrides, scale_for, suite_flags
from cbalign.experiments.rehearsal.verdict import judge
from cbalign.experiments.suites import SUITES
from cbalign.storage import read_json, write_json
from tests.experiments.folders import add_result, make_run
from tests.experiments.test_engine import flags_of

KS = [f"{direction}@{k}" for direction in ("tr", "ir") for k in (1, 5, 10)]
QUESTIONS = {
    "questions": [
        {"question_id": number} for number in range(official_folders.EVALUATED["vqa_v2", "test"]["questions"])
    ]
}
TERMS = "loss 1 ica 1 itm 1 vqa_hard 1 vqa_soft 1 token_accuracy 1 class_hard 1 class_soft 1 class_accuracy 1 "


class Finished:
    """Leaves what `cbalign train`, `evaluate` and `report` leave; each figure is another one."""

    def __init__(self, folder):
        self.folder, self.figure, self.log = folder, 10.0, []

    def __call__(self, arguments):
        if arguments[0] == "tables":
            return main(arguments)
        flags = flags_of(arguments)
        workdir = epath.Path(flags["workdir"][0])
        if arguments[0] == "report":
            return self.report(workdir)
        self.log.append(engine.typed(arguments))
        if arguments[0] == "train":
            self.train(workdir, flags["config"][0])
        for split in flags.get("split", ()):
            self.evaluate(workdir, split, flags.get("config", [""])[0])
        return 0

    def train(self, workdir, config):
        make_run(workdir, config=config, steps=4, overrides=("rehearse=True",))
        lines = [{"step": step, "train/loss": 1.0} for step in range(1, 5)]
        (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (workdir / "train.log").write_text(f"2026-11-26 10:00:00 step 4/4  {TERMS}\n")
        (workdir / "checkpoints" / "4").mkdir(parents=True)

    def evaluate(self, workdir, split, settings):
        self.figure += 0.05
        config = load_config(settings) if settings else load_config(config_of(workdir))
        place = (config.data.name, split)
        result = {**official_folders.EVALUATED[place], "notes": [], "protocol": {"name": config.protocol.name}}
        if config.task in ("retrieval", "pretrain"):
            result |= {"itm": {name: self.figure + 7 * i for i, name in enumerate(KS)}, "contrastive": {}}
        elif place == ("vqa_v2", "test"):
            result |= {"accuracy": None}
        else:
            result |= {"accuracy": {"overall": self.figure, "consistency": 1.0}}
        file = add_result(workdir, split, result, settings=settings)
        if place == ("vqa_v2", "test"):
            answers = [{**question, "answer": "yes"} for question in QUESTIONS["questions"]]
            file.with_name(f"{file.stem}_answers.json").write_text(json.dumps(answers))

    def report(self, workdir):
        figures = [x for file in (workdir / "metrics").glob("*.json") for x in numbers(json.loads(file.read_text()))]
        (workdir / "report").mkdir(exist_ok=True)
        (workdir / "report" / "losses.png").write_bytes(b"")
        (workdir / "report.html").write_text("".join(f"<td>{figure:.2f}</td>" for figure in figures))
        return 0


def config_of(workdir):
    """The config a run was made with, by the command in its folder's name."""
    return next(row.config for row in SUITES["paper"].rows if row.name == workdir.name)


def numbers(value):
    """All floats in it."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, float):
        yield value


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A rehearsal as it is when all went well, and a copy of it."""
    folder = tmp_path_factory.mktemp("rehearsal") / "folder"
    commands = Finished(folder)
    job = engine.Job(SUITES["paper"], epath.Path(folder / "runs"), overrides=("rehearse=True",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_forget_compiled", lambda: None)  # nothing is compiled
        assert engine.run_suite(job, commands, say=lambda line: None) == 0
    (folder / "suite.log").write_text("".join(f"{line}\n" for line in commands.log))
    questions = folder / "official/vqa_v2/v2_OpenEnded_mscoco_test2015_questions.json"
    questions.parent.mkdir(parents=True)
    questions.write_text(json.dumps(QUESTIONS))
    return commands, shutil.copytree(folder, folder.with_name("copy"))


@pytest.fixture
def finished(kept):
    """The rehearsal, whole again."""
    commands, copy = kept
    shutil.rmtree(commands.folder)
    shutil.copytree(copy, commands.folder)
    return commands


def verdict(finished, **options):
    said = []
    code = judge(finished.folder, finished, say=said.append, **options)
    return code, said[-1]


def test_a_rehearsal_that_went_well_passes(finished):
    code, said = verdict(finished)
    rows = len(SUITES["paper"].rows)
    assert code == 0 and said.startswith(f"rehearsal passed: {rows} rows, "), said
    assert "cells that no row fills" in said  # ALBEF's row has no figures on Flickr30K


def test_some_rows_alone_are_judged_by_what_they_left(finished):
    runs = finished.folder / "runs"
    for path in runs.iterdir():
        if path.name not in ("pretrain", "retrieval_coco", ".locks"):
            shutil.rmtree(path)
    code, said = verdict(finished, only=["zero_shot_flickr"])
    # COCO zero-shot, in three tables, and fine-tuned; Flickr30K zero-shot.
    assert code == 0 and said.startswith("rehearsal passed: 3 rows, 3 evaluations, 30 cells;"), said
    (runs / "pretrain/metrics/retrieval_coco_karpathy_test_zero-shot_COCO_5K.json").unlink()
    code, said = verdict(finished, only=["zero_shot_flickr"])
    assert code == 1 and "pretrain is not done: evaluate is missing" in said


def rewritten(name, change):
    """Changes the result of a run that a file name contains."""

    def apply(folder):
        (file,) = (folder / "runs").glob(f"{name}.json")
        content = read_json(file)
        change(content)
        write_json(epath.Path(file), content)

    return apply


def edited(file, old, new):
    def apply(folder):
        path = folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return apply


@pytest.mark.parametrize(
    "damage, told",
    [
        (rewritten("vqa_val/metrics/vqa_vqa_v2_val", lambda r: r.update(questions=19)), "is about 19 questions"),
        (
            rewritten("nlvr2/metrics/nlvr2_nlvr2_test", lambda r: r.update(confusion=[[1, 1], [0, 2]])),
            "its confusion matrix says 75.0",
        ),
        (
            rewritten("pretrain/metrics/*zero*", lambda r: r.update(notes=["zero-shot COCO 5K uses other images"])),
            "departs from its protocol",
        ),
        (edited("runs/vqa/metrics/vqa_vqa_v2_test_answers.json", "yes", ""), "does not answer each question"),
        (edited("runs/snli_ve/run.json", '"finished"', '"interrupted"'), "runs/snli_ve is not done: train is missing"),
        (edited("runs/sinkhorn/metrics.jsonl", '"step": 3', '"step": 2'), "the steps [1, 2, 2, 4], not each of 1 to 4"),
        (edited("runs/vqa/train.log", " vqa_soft ", " vqa "), "does not name vqa_soft"),
        (edited("runs/nlvr2/config.json", '"rehearse": true', '"rehearse": false'), "nlvr2 is not a miniature"),
        (lambda folder: (folder / "runs/codes_500/checkpoints/4").rmdir(), "no checkpoint of its last step"),
        (
            lambda folder: next((folder / "runs").glob("nlvr2/metrics/*val*")).unlink(),
            "runs/nlvr2 is not done: evaluate is missing",
        ),
        (
            lambda folder: (folder / "suite.log").write_text((folder / "suite.log").read_text() * 2),
            "run 2 times: cbalign train --config=paper/pretrain",
        ),
    ],
)
def test_what_differs_is_named(finished, damage, told):
    damage(finished.folder)
    code, said = verdict(finished)
    assert code == 1 and said.startswith("rehearsal failed: ")
    assert told in said or told in (finished.folder / "problems.txt").read_text(), said


@pytest.mark.parametrize(
    "file, old, new, told",
    [
        ("paper.csv", ",31.05", ",31.06", "its file says 31.05"),
        ("paper.md", " 31.1 |", " 31.2 |", "is shown as '31.2', not as 31.1"),
    ],
)
def test_a_cell_that_is_not_its_files_is_found(finished, monkeypatch, file, old, new, told):
    def tables(arguments):
        code = main(arguments)
        path = finished.folder / "tables" / file
        assert old in path.read_text(), path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        return code

    call = lambda arguments: tables(arguments) if arguments[0] == "tables" else finished(arguments)  # noqa: E731
    said = []
    assert judge(finished.folder, call, say=said.append) == 1
    assert told in said[-1], said[-1]


@pytest.mark.parametrize("scale", [1, 2])
def test_the_folders_hold_what_is_evaluated_and_enough_to_train_on(tmp_path, scale):
    folders = official_folders.write_folders(tmp_path, scale=scale)
    contents = {name: find_builder(name).contents(folder) for name, folder in folders.items()}
    for (name, split), counts in official_folders.EVALUATED.items():
        assert [len(contents[name].splits[split].rows)] == list(counts.values()), (name, split)
    for name, content in contents.items():
        assert len(content.splits["train"].rows) >= 40 * scale, name
        assert any(len(x.rows) % 8 for x in content.splits.values())  # not every batch of an evaluation is full
    assert "val2014" in {row.images[0].path.split("/")[-2] for row in contents["coco_karpathy"].splits["train"].rows}
    assert any("truncated" in note for note in contents["sbu"].notes)
    assert contents["visual_genome"].splits["train"].skipped and contents["snli_ve"].splits["val"].skipped


def test_rehearsals_and_real_runs_do_not_share_a_folder(finished):
    runs = epath.Path(finished.folder / "runs")
    with pytest.raises(UserError, match="runs holds a rehearsal .*name another --runs"):
        engine.check(engine.Job(SUITES["paper"], runs))
    assert main(["suite", "--suite=paper", f"--runs={runs}", "--dry-run"]) == 2


@pytest.mark.parametrize("devices, batch", [(1, 16), (8, 16), (16, 16), (32, 32), (64, 64)])
def test_the_batch_divides_over_the_devices(devices, batch):
    changed = overrides(devices)
    for name in ("paper/pretrain", "paper/retrieval_coco", "paper/vqa", "paper/nlvr2_pretrain", "paper/nlvr2"):
        config = load_config(name, changed)
        assert config.train.batch_size == batch and batch % devices == 0
        engine.task_class(config).check(config, devices=devices)
    assert scale_for(devices) == batch // 16
    assert suite_flags("gs://b/r", devices)[0] == "--runs=gs://b/r/runs"


@pytest.mark.parametrize("devices", [0, 24, 128])
def test_a_number_of_devices_that_cannot_be_rehearsed_is_named(devices):
    with pytest.raises(UserError, match=f"--devices={devices}: a rehearsal is for"):
        overrides(devices)
