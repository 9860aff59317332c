"""The small suites: the paper's ablations on data that is at hand, with seeds and a rate chosen for each row."""

import dataclasses

from cbalign.experiments.ablations import ABLATIONS, Ablation, codebook_sizes
from cbalign.experiments.suite import Column, Evaluation, Line, Measurement, Row, Suite, Table, recall_columns


@dataclasses.dataclass(frozen=True)
class SmallSuite(Suite):
    """A suite of many short runs: every row with several seeds, at a learning rate of its own from one grid.

    Attributes:
      validation: evaluations by which the learning rate is chosen.
      steps: budget of every run.
      rates: the grid of learning rates.
    """

    validation: tuple[Evaluation, ...] = ()
    steps: int = 0
    rates: tuple[float, ...] = ()


# One field of the codebook at a time, about the setting of the method's row.
_SENSITIVITY = (
    Ablation("tau_c_0.05", "τ_c = 0.05", ("codebook.temperature=0.05",), "codebook"),
    Ablation("tau_c_0.2", "τ_c = 0.2", ("codebook.temperature=0.2",), "codebook"),
    Ablation("tau_c_tied", "τ_c = τ", ("codebook.temperature=0.0",), "codebook"),
    Ablation("queue_256", "256 queue rows in the transport", ("codebook.queue_rows=256",), "codebook"),
    Ablation("queue_1024", "1,024 queue rows in the transport", ("codebook.queue_rows=1024",), "codebook"),
    Ablation("freeze_100", "codes frozen for 100 steps", ("codebook.freeze_steps=100",), "codebook"),
    Ablation("weight_0.1", "weight of L_code 0.1", ("loss_weights.code=0.1",), "codebook"),
    Ablation("weight_0.3", "weight of L_code 0.3", ("loss_weights.code=0.3",), "codebook"),
    Ablation("weight_3", "weight of L_code 3", ("loss_weights.code=3.0",), "codebook"),
)

_MEASURED = Measurement("stability")
_STABILITY = (
    *(Column(f"{kind}_{measure}", f"{kind} {measure}", _MEASURED, (kind, measure), digits=3)
      for kind in ("codes", "instances") for measure in ("changed", "moved", "decorrelated")),
    Column("loss_deviation", "loss, step to step", _MEASURED, ("loss", "deviation"), digits=3),
    Column("gradient_deviation", "gradient norm, step to step / mean", _MEASURED, ("gradient_norm", "relative"),
           digits=3),
)
_STABILITY_NOTE = (
    "The same training pairs from epoch to epoch, mean over epochs and modalities, by what the teacher aligns them with: "
    "codes, or as many other pairs. changed: share whose nearest is another one; moved: total variation of the targets "
    "relative to that between different pairs; decorrelated: 1 - correlation of the similarities. Step to step: standard "
    "deviation within `train.log_steps` steps, mean over the epochs after the first. Losses of rows with different terms do "
    "not compare."
)


def _mean_recall(evaluation: Evaluation, label: str) -> Column:
    return Column(f"{evaluation.split}_mean", f"{label} mean R", evaluation, ("contrastive",))


def _suite(name: str, *, config: str, tests: dict, validation: tuple[str, ...], sizes, steps: int,
           rates: tuple[float, ...]) -> SmallSuite:
    """A small suite on one data set.

    Args:
      name: of the suite.
      config: the whole method's config.
      tests: {test split: its label}.
      validation: splits the learning rate is chosen on.
      sizes: numbers of codes; the last is the config's.
      steps: budget of each run.
      rates: grid of learning rates, about the config's.
    """
    evaluations = {split: Evaluation(split) for split in tests}
    columns = tuple(
        column for split, label in tests.items()
        for column in (*recall_columns(evaluations[split], split, label, score="contrastive", ks=(1, 10)),
                       _mean_recall(evaluations[split], label))
    )
    groups = (
        ("ablation", "Parts of the method", ABLATIONS),
        ("codes", "Number of codes", (*codebook_sizes(sizes), Ablation("codebook", f"{sizes[-1]:,} codes", ()))),
        ("sensitivity", "Sensitivity of the codebook",
         (Ablation("codebook", "as in the config", ()), *_SENSITIVITY)),
    )
    rows = {}
    for _, _, ablations in groups:
        for a in ablations:
            rows.setdefault(a.name, Row(a.name, a.label, config, a.overrides, tuple(evaluations.values()),
                                        against=a.against))
    tables = tuple(
        Table(table, title, columns, tuple(Line(a.label, (a.name,)) for a in ablations),
              note="Recall in %, ranked by the contrastive score; mean R is the mean of R@1, 5, 10 in both directions.")
        for table, title, ablations in groups
    )
    tables += (Table("stability", "Stability", _STABILITY, tuple(Line(a.label, (a.name,)) for a in ABLATIONS),
                     note=_STABILITY_NOTE),)
    return SmallSuite(
        name, tuple(rows.values()), tables, validation=tuple(map(Evaluation, validation)), steps=steps,
        rates=rates,
    )


# The numbers of codes stand to the batch of 64 about as 500, 1000, 2000 and 4000 do to the paper's 512.
EMOJI = _suite(
    "emoji", config="configs/emoji.py", steps=500, sizes=(64, 125, 250, 500),
    tests={"test_vendor": "vendor", "test_concept": "concept"}, validation=("val_vendor", "val_concept"),
    rates=(1e-3, 2e-3, 4e-3),
)
SCENES = _suite(
    "scenes", config="configs/scenes.py", steps=250, sizes=(64, 125, 250, 500), tests={"test": "scenes"},
    validation=("val",), rates=(1e-3, 2e-3),
)
