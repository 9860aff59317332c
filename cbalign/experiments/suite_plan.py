"""The plan of a whole suite on a topology: every row's memory, days and chip-hours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from cbalign.config import ConfigDict, load_config
from cbalign.experiments.suite import Row, Suite
from cbalign.plan.ahead import Compiler, flops_per_pair
from cbalign.plan.data_sizes import need_samples
from cbalign.plan.run_plan import RunPlan, TrainingPlan, plan_run, plan_training, price_training
from cbalign.runs.evaluate import merged_settings

# What decides the cost of a step, up to the losses' share of it.
_SIZES = (
    "task",
    "model",
    "queue",
    "itm",
    "mlm",
    "vqa",
    "data.image_size",
    "data.max_tokens",
    "train.batch_size",
    "train.microbatches",
)
# A row with more products than another by no more than this share costs the same.
_SAME = 0.01


@dataclasses.dataclass(frozen=True)
class PlannedRow:
    """A row.

    Attributes:
      row: which.
      plan: of its run.
      shared_with: name of the row whose step was priced in its place, as it differs in losses alone; "" for its own.
    """

    row: Row
    plan: RunPlan
    shared_with: str = ""


def plan_suite(
    suite: Suite,
    compiler: Compiler,
    *,
    rows: tuple[Row, ...],
    every_program: bool = False,
    utilisation: float | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> list[PlannedRow]:
    """Plans the rows of a suite of one run each.

    Args:
      suite: which.
      compiler: for the topology.
      rows: of the suite, those to plan.
      every_program: compile the step of every row, also where it differs from another's in losses alone.
      utilisation: see `cbalign.plan.cost.duration`.
      say: called with a line before each row.
    """
    found, priced = [], {}
    for number, row in enumerate(rows, start=1):
        say(f"{suite.name} on {compiler.topology}, row {number} of {len(rows)}: {row.name}")
        config = load_config(row.config, row.overrides)
        samples = need_samples(config, row.config) if row.trains else 0
        training, shared = None, ""
        if row.trains:
            training, shared = _training(row, config, compiler, priced, samples, every_program, utilisation)
        trained = config if row.trains else load_config(suite.row(row.after).config, suite.row(row.after).overrides)
        after = tuple(
            (_evaluated_by(trained, evaluation.protocol), evaluation.data or config.data.name, evaluation.split)
            for evaluation in row.evaluations
        )
        plan = plan_run(config, compiler, training=training, samples=samples, after=after, utilisation=utilisation)
        found.append(PlannedRow(row, plan, shared))
    return found


def _training(row, config, compiler, priced, samples, every_program, utilisation) -> tuple[TrainingPlan, str]:
    """The plan of a row's training, and the row it shares a step with; `priced` remembers what was compiled."""
    key, flops = _sizes(config), 0.0
    if key in priced and not every_program:
        base, compiled, per_pair = priced[key]
        flops = flops_per_pair(config)
        if flops <= per_pair * (1 + _SAME):
            return price_training(
                config, compiler, compiled, samples=samples, utilisation=utilisation, cached=True
            ), base
    training = plan_training(config, compiler, samples=samples, utilisation=utilisation)
    priced.setdefault(key, (row.name, training.compiled, flops or flops_per_pair(config)))
    return training, ""


def _sizes(config: ConfigDict) -> str:
    values = config.to_dict()
    parts = []
    for name in _SIZES:
        section, _, field = name.partition(".")
        parts.append(values[section][field] if field else values[section])
    return repr(parts)


def _evaluated_by(trained: ConfigDict, protocol: str) -> ConfigDict:
    return merged_settings(trained, load_config(protocol)).lock() if protocol else trained
