"""The engine: what is missing, in which order, and a small suite that is really run beside another process."""

import filelock
import pytest
from etils import epath

from cbalign.__main__ import main
from cbalign.errors import UserError
from cbalign.experiments import engine, trials
from cbalign.experiments.run_status import FINISHED, read_run
from cbalign.experiments.settings import Settings
from cbalign.experiments.suite import Evaluation, Measurement, Row, Search, Suite
from cbalign.experiments.suites import SUITES
from tests.experiments.folders import add_measurement, add_result, make_run, recalls

# Each rate compiles a step of its own: one without the losses that nothing here asks for.
CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__dir={dir!r}, loss_weights__itm=0.0, loss_weights__mlm=0.0)
"""


def flags_of(arguments):
    """{flag: its values} of a command."""
    flags = {}
    for argument in arguments[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        flags.setdefault(name, []).append(value)
    return flags


class FakeCommands:
    """Stands for the command line: leaves what `cbalign train` and `evaluate` leave, and notes each call."""

    def __init__(self, *, codes=None, diverging=()):
        self.calls, self.codes, self.diverging = [], codes or {}, diverging

    def __call__(self, arguments):
        flags = flags_of(arguments)
        workdir = epath.Path(flags["workdir"][0])
        self.calls.append((arguments[0], workdir.name, *flags.get("split", ())))
        if code := self.codes.get(self.calls[-1][:2]):
            return code
        if arguments[0] == "train":
            diverged = workdir.name in self.diverging
            make_run(
                workdir,
                config=flags["config"][0],
                status="diverged" if diverged else "finished",
                step=50 if diverged else 100,
            )
            return 2 if diverged else 0
        for split in flags["split"]:
            add_result(workdir, split, recalls(20.0), settings=flags.get("config", [""])[0])
        return 0


@pytest.fixture
def nothing_compiled(monkeypatch):
    """Where no command is run there are no programs to forget after each row, for which all memory is walked over."""
    monkeypatch.setattr(engine, "_forget_compiled", lambda: None)


def paper_job(tmp_path, *only, weights=""):
    return engine.Job(SUITES["paper"], tmp_path / "runs", only=only, weights=weights)


@pytest.mark.usefixtures("nothing_compiled")
def test_every_evaluation_of_the_paper_is_found_where_it_is_written(tmp_path):
    job, commands = paper_job(tmp_path), FakeCommands()
    assert engine.run_suite(job, commands, say=lambda line: None) == 0
    assert not engine.outstanding(job)
    assert commands.calls[:6] == [
        ("train", "pretrain"),
        ("evaluate", "pretrain", "test"),
        ("train", "retrieval_coco"),
        ("evaluate", "retrieval_coco", "test"),
        ("evaluate", "retrieval_coco", "test"),
        ("train", "retrieval_flickr"),
    ]
    assert ("evaluate", "nlvr2", "val", "test") in commands.calls and ("evaluate", "vqa", "test") in commands.calls
    done = len(commands.calls)
    assert engine.run_suite(job, commands, say=lambda line: None) == 0 and len(commands.calls) == done


def test_commands_name_configs_and_where_a_run_starts(tmp_path):
    job = paper_job(tmp_path, "zero_shot_flickr", "sinkhorn", weights="w/deit")
    lines = [engine.typed(engine.command(job, step)) for step in engine.outstanding(job)]
    runs, start = tmp_path / "runs", f" --config.init.weights={tmp_path}/runs/pretrain"
    assert lines == [
        f"cbalign train --config=paper/pretrain --workdir={runs}/pretrain --config.init.weights=w/deit",
        f"cbalign evaluate --workdir={runs}/pretrain --config=paper/zero_shot_coco --split=test",
        f"cbalign train --config=paper/retrieval_coco --workdir={runs}/retrieval_coco{start}",
        f"cbalign evaluate --workdir={runs}/retrieval_coco --data=coco_karpathy --split=test",
        f"cbalign evaluate --workdir={runs}/retrieval_coco --config=paper/zero_shot_flickr --split=test",
        f"cbalign train --config=paper/ablation:sinkhorn --workdir={runs}/sinkhorn --config.init.weights=w/deit",
        f"cbalign evaluate --workdir={runs}/sinkhorn --config=paper/zero_shot_coco --split=test",
    ]


@pytest.mark.usefixtures("nothing_compiled")
def test_a_failed_or_interrupted_command_stops_the_suite_and_is_repeated(tmp_path):
    job = paper_job(tmp_path, "retrieval_coco")
    commands = FakeCommands(codes={("train", "retrieval_coco"): 75})
    assert engine.run_suite(job, commands, say=lambda line: None) == 75
    assert commands.calls[-1] == ("train", "retrieval_coco")
    commands = FakeCommands(diverging=("retrieval_coco",))
    assert engine.run_suite(job, commands, say=lambda line: None) == 2
    assert commands.calls == [("train", "retrieval_coco")]
    assert [step.kind for step in engine.outstanding(job)] == ["train", "evaluate"]


@pytest.mark.usefixtures("nothing_compiled")
def test_a_command_that_leaves_no_result_is_not_repeated(tmp_path):
    calls = []
    with pytest.raises(UserError, match="pretrain.* ended without leaving its result"):
        engine.run_suite(paper_job(tmp_path, "pretrain"), calls.append, say=lambda line: None)
    assert len(calls) == 1


@pytest.mark.usefixtures("nothing_compiled")
def test_a_row_waits_for_the_run_it_starts_from(tmp_path):
    job, commands, said = paper_job(tmp_path, "retrieval_coco"), FakeCommands(), []
    (tmp_path / "runs/.locks").mkdir(parents=True)
    with filelock.FileLock(str(tmp_path / "runs/.locks/pretrain.lock")):
        assert engine.run_suite(job, commands, say=said.append) == 0
    assert not commands.calls
    assert said == [
        "pretrain: left to the process that works on it",
        "retrieval_coco: skipped, the run of pretrain is not finished",
    ]


def small_suite(config):
    test = Evaluation("test")
    rows = tuple(
        Row(name, name, str(config), overrides, (test,))
        for name, overrides in (("with", ()), ("without", ("loss_weights.code=0.0",)))
    )
    return Suite("tiny", rows, (), Search((Evaluation("val"),), steps=2, rates=(1e-3, 1e-2)))


@pytest.mark.usefixtures("nothing_compiled")
def test_a_trial_that_diverges_is_an_outcome(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(CONFIG.format(dir=""))
    suite = small_suite(tmp_path / "tiny.py")
    job = engine.Job(suite, tmp_path / "runs", Settings("tiny", 2, (1e-3, 1e-2), 1, 2), only=("with",))
    monkeypatch.setattr(engine, "_steps_per_epoch", lambda *_: 2)
    monkeypatch.setattr(engine, "_measure", add_measurement)
    commands = FakeCommands(diverging=("seed_1",))
    assert engine.run_suite(job, commands, say=lambda line: None) == 0
    # Equal scores: the first rate. Seed 1 diverged and is neither evaluated nor tried again.
    assert commands.calls == [
        ("train", "seed_0"),
        ("evaluate", "seed_0", "val"),
        ("train", "seed_0"),
        ("evaluate", "seed_0", "val"),
        ("evaluate", "seed_0", "test"),
        ("train", "seed_1"),
    ]
    assert not engine.outstanding(job)


@pytest.mark.slow
def test_a_row_gets_its_rate_and_then_its_seeds_and_a_row_of_another_process_is_left_to_it(tmp_path, tfds_dir):
    (tmp_path / "tiny.py").write_text(CONFIG.format(dir=str(tfds_dir)))
    suite, runs = small_suite(tmp_path / "tiny.py"), tmp_path / "runs"
    settings = Settings("tiny", steps=2, rates=suite.search.rates, tuning_seeds=1, seeds=2)
    job, said = engine.Job(suite, runs, settings), []

    (runs / ".locks").mkdir(parents=True)
    with filelock.FileLock(str(runs / ".locks" / "without.lock")):
        assert engine.run_suite(job, main, say=said.append) == 0
    assert said[-1] == "without: left to the process that works on it"
    assert {step.trial.row.name for step in engine.outstanding(job)} == {"without"}
    row = suite.rows[0]
    rate = trials.chosen_rate(suite.search, row, settings, runs)
    scores = {r: trials.score(suite.search, read_run(runs / f"with/rate_{r:g}/seed_0")) for r in suite.search.rates}
    assert scores[rate] == max(scores.values())
    # Tried on validation at both rates; tested with both seeds at the better one only.
    (val,), (test,) = suite.search.validation, row.evaluations
    for r in suite.search.rates:
        for seed in range(2 if r == rate else 1):
            folder = read_run(runs / f"with/rate_{r:g}/seed_{seed}")
            assert folder.status == FINISHED and folder.step == 2 and folder.config["optimizer"]["learning_rate"] == r
            assert folder.result(val) and (folder.result(test) is not None) == (r == rate)
            # Both checkpoints were compared, and the last is kept.
            assert folder.result(Measurement())["steps"] == [1, 2]
            assert len(folder.result(Measurement())["codes"]["changed"]) == 1
            kept = [path.name for path in (folder.workdir / "checkpoints").iterdir() if path.name.isdigit()]
            assert kept == ["2"]
    assert len(list((runs / "with").glob("rate_*/seed_*"))) == 3

    said.clear()
    assert engine.run_suite(engine.Job(suite, runs, settings, only=("with",)), main, say=said.append) == 0
    assert len(said) == 1 and "chosen on validation" in said[0]
