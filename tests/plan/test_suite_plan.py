"""The plan of a suite: which rows share a step, what evaluations add, the sums, and what `cbalign tables` reads of it.

The compiler is a stub of known times; its rows are real configs.
"""

import json

import pytest

from cbalign.__main__ import main
from cbalign.evaluation.calls import SplitSize
from cbalign.experiments import suite_plan
from cbalign.experiments.gather import read_chip_hours
from cbalign.experiments.suite import Evaluation, Row, Suite
from cbalign.plan import data_sizes, show
from cbalign.plan.ahead import Compiled
from cbalign.plan.chips import parse_topology

CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__name="mine", train__steps=0, train__epochs=2, train__batch_size=16, eval__splits=("val",),
                       eval__rerank_top_k=4, train__eval_steps=20).unlock()
"""

ROWS = (
    Row("whole", "", "{config}", evaluations=(Evaluation("test", data="mine"),)),
    Row("sinkhorn", "", "{config}", overrides=("codebook.solver=sinkhorn",)),
    Row("dear", "", "{config}", overrides=("codebook.teacher=False",)),
    Row("wide", "", "{config}", overrides=("model.text_depth=2",)),
    Row("other", "", "{config}", evaluations=(Evaluation("hidden", data="mine"),), after="whole", trains=False),
)


class Compiler:
    """Every step takes 2 s and 3 GiB beside 1 GiB of state, every call of an evaluation 1 s and 2 GiB."""

    def __init__(self):
        self.topology, self.asked, self.called = parse_topology("v4-8"), [], []

    def step(self, config):
        self.asked.append(config)
        return self._made(2.0, peak=3 << 30, state=1 << 30), False

    def call(self, function, arguments, what):
        self.called.append(what)
        return self._made(1.0, peak=2 << 30, state=0), False

    @staticmethod
    def _made(seconds, *, peak, state):
        return Compiled(True, peak, state, 0, 10**9, 0, 0, [], 1.0, {"seconds": seconds, "bytes": 0})


@pytest.fixture
def planned(tmp_path, monkeypatch):
    file = tmp_path / "tiny.py"
    file.write_text(CONFIG)
    monkeypatch.setitem(
        data_sizes.SIZES,
        "mine",
        {"train": SplitSize(1_000, 5_000), "val": SplitSize(64, 64), "test": SplitSize(32, 96)},
    )
    dearer = lambda config: 1.0 if config.codebook.teacher else 1.2  # noqa: E731
    monkeypatch.setattr(suite_plan, "flops_per_pair", dearer)
    rows = tuple(Row(**{**vars(row), "config": str(file)}) for row in ROWS)
    suite, compiler = Suite("mine", rows, ()), Compiler()

    def plan(**options):
        return suite_plan.plan_suite(suite, compiler, rows=rows, **options)

    return plan, compiler


def test_rows_that_differ_in_losses_share_a_step(planned):
    plan, compiler = planned
    found = {one.row.name: one for one in plan()}
    assert {name: one.shared_with for name, one in found.items()} == {
        "whole": "", "sinkhorn": "whole", "dear": "", "wide": "", "other": "",
    }  # fmt: skip
    assert len(compiler.asked) == 3
    plan(every_program=True)
    assert len(compiler.asked) == 3 + 4


def test_days_by_hand(planned):
    plan, _ = planned
    whole, *_, other = plan()
    # 2 epochs of 1,000 // 16 = 62 steps of 2 s; every 20 steps and at the end 2 + 2 calls of 1 s on 64 images and texts.
    assert whole.plan.training_days == pytest.approx(2 * 62 * 2 / 86_400)
    assert whole.plan.during[0][0] == 7
    calls = {call["name"]: call["count"] for call in whole.plan.during[0][1].calls}
    assert calls == {"encode images": 2, "encode texts": 2}
    (after,) = whole.plan.after
    calls = {call["name"]: call["count"] for call in after.calls}
    # 4 x (32 + 32) + 2 x 32 pairs at most with one text an image, a text of an image at a time in a unit of 2.
    assert calls["encode images"] == 1 and calls["encode texts"] == 1 and calls["match pairs"] > 0
    assert whole.plan.days == pytest.approx(whole.plan.training_days + (7 * 4 + after.seconds) / 86_400)
    # Evaluations in training stand beside the state.
    assert whole.plan.peak_bytes == 3 << 30
    assert other.plan.training is None and other.plan.days == 0 and other.plan.unknown == ("mine hidden",)


def test_table_and_json(planned, tmp_path):
    plan, compiler = planned
    content = show.suite_json(compiler.topology, plan())
    hours = {row["row"]: row["chip_hours"] for row in content["rows"]}
    assert content["chip_hours"] == pytest.approx(sum(hours.values()))
    assert hours["sinkhorn"] == pytest.approx(4 * (2 * 62 * 2 + 7 * 4) / 3600)
    lines = show.suite_table(content)
    assert lines[1].split()[:3] == ["row", "memory", "fits"] and lines[-1].startswith("waiting for data")
    assert any(line.startswith("priced as whole") and line.endswith(": sinkhorn") for line in lines)
    assert any("mine hidden" in line for line in lines)
    total = next(line for line in lines if line.startswith("sum")).split()
    assert float(total[-1].replace(",", "")) == pytest.approx(content["chip_hours"], abs=0.5)
    file = tmp_path / "plan.json"
    rows = [{"config": row["row"], "chip_hours": row["chip_hours"]} for row in content["rows"]]
    file.write_text(json.dumps({"rows": rows}))
    assert read_chip_hours([file]) == pytest.approx(hours)


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--suite=nothing"], "no suite"),
        (["--suite=emoji"], "search their learning rates"),
        (["--suite=paper", "--only=nothing"], "has no row"),
        (["--suite=paper", "--evaluate=test"], "takes its rows as they are"),
        (["--config=emoji", "--evaluate=nothing"], "give it as RECORDS,TEXTS"),
    ],
)
def test_mistakes_end_in_one_line(flags, told, capsys):
    assert main(["plan", "--topology=H100:1", *flags]) == 2
    assert told in capsys.readouterr().err
