"""A small suite that is really run, by one process beside another one."""

import filelock
import pytest

from cbalign.experiments import trials
from cbalign.experiments.run_status import FINISHED, read_run
from cbalign.experiments.trial_queue import outstanding, run_suite
from cbalign.experiments.suite import Evaluation, Row
from cbalign.experiments.small import SmallSuite
from cbalign.experiments.trials import Settings

CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__dir={dir!r})
"""


@pytest.mark.slow
def test_a_row_gets_its_rate_and_then_its_seeds_and_a_row_of_another_process_is_left_to_it(tmp_path, tfds_dir):
    (tmp_path / "tiny.py").write_text(CONFIG.format(dir=str(tfds_dir)))
    runs, test = tmp_path / "runs", Evaluation("test")
    rows = tuple(Row(name, name, str(tmp_path / "tiny.py"), overrides, (test,))
                 for name, overrides in (("with", ()), ("without", ("loss_weights.code=0.0",))))
    suite = SmallSuite("tiny", rows, (), validation=(Evaluation("val"),), steps=2, rates=(1e-3, 1e-2))
    settings = Settings("tiny", steps=2, rates=suite.rates, tuning_seeds=1, seeds=2)
    said = []

    (runs / "without").mkdir(parents=True)
    with filelock.FileLock(str(runs / "without" / ".lock")):
        assert run_suite(suite, settings, runs, say=said.append) == ""
    assert said[-1] == "without: left to the process that is at it"
    assert {trial.row.name for trial, _ in outstanding(suite, settings, runs)} == {"without"}
    rate = trials.chosen_rate(suite, rows[0], settings, runs)
    scores = {r: trials.score(read_run(runs / f"with/rate_{r:g}/seed_0"), suite) for r in suite.rates}
    assert scores[rate] == max(scores.values())
    # Tried on validation at both rates; tested with both seeds at the better one alone.
    for r in suite.rates:
        for seed in range(2 if r == rate else 1):
            folder = read_run(runs / f"with/rate_{r:g}/seed_{seed}")
            assert folder.status == FINISHED and folder.step == 2 and folder.config["optimizer"]["learning_rate"] == r
            assert folder.result(suite.validation[0]) and (folder.result(test) is not None) == (r == rate)
    assert len(list((runs / "with").glob("rate_*/seed_*"))) == 3

    said.clear()
    assert run_suite(suite, settings, runs, only=["with"], say=said.append) == ""
    assert len(said) == 1 and "chosen on validation" in said[0]
