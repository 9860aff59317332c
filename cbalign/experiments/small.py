"""The small suites: the paper's ablations on small data, with several seeds and a learning rate chosen for each row."""

from cbalign.experiments.ablations import ABLATIONS, WHOLE, Ablation, codebook_sizes
from cbalign.experiments.suite import Column, Evaluation, Line, Measurement, Row, Search, Suite, Table, recall_columns

# One field of the codebook at a time, around its value in the whole method.
_SENSITIVITY = (
    Ablation("tau_c_0.05", "τ_c = 0.05", ("codebook.temperature=0.05",), WHOLE),
    Ablation("tau_c_0.2", "τ_c = 0.2", ("codebook.temperature=0.2",), WHOLE),
    Ablation("tau_c_tied", "τ_c = τ", ("codebook.temperature=0.0",), WHOLE),
    Ablation("queue_256", "256 queue rows in the transport", ("codebook.queue_rows=256",), WHOLE),
    Ablation("queue_1024", "1,024 queue rows in the transport", ("codebook.queue_rows=1024",), WHOLE),
    Ablation("freeze_100", "codes frozen for 100 steps", ("codebook.freeze_steps=100",), WHOLE),
    Ablation("weight_0.1", "weight of L_code 0.1", ("loss_weights.code=0.1",), WHOLE),
    Ablation("weight_0.3", "weight of L_code 0.3", ("loss_weights.code=0.3",), WHOLE),
    Ablation("weight_3", "weight of L_code 3", ("loss_weights.code=3.0",), WHOLE),
)

_MEASURED = Measurement()
STABILITY_COLUMNS = (
    *(
        Column(f"{kind}_{measure}", f"{kind} {measure}", _MEASURED, (kind, measure), mean=True, digits=3)
        for kind in ("codes", "instances")
        for measure in ("changed", "moved", "decorrelated")
    ),
    Column("loss_deviation", "loss, step to step", _MEASURED, ("loss", "deviation"), digits=3),
    Column(
        "gradient_deviation", "gradient norm, step to step / mean", _MEASURED, ("gradient_norm", "relative"), digits=3
    ),
)
STABILITY_NOTE = (
    "The same training pairs from epoch to epoch, mean over epochs and modalities, by what the teacher aligns them "
    "with: codes, or as many other pairs. changed: share whose nearest one changes; moved: total variation of the "
    "targets relative to that between different pairs; decorrelated: 1 - correlation of similarities. Step to "
    "step: standard deviation within `train.log_steps` steps, mean over the epochs after the first. Losses of rows "
    "with different terms are not comparable."
)


RECALL_NOTE = "Recall in %, ranked by the contrastive score; mean R is the mean of R@1, 5, 10 in both directions."


def contrastive_columns(tests: dict[str, str]) -> tuple[Column, ...]:
    """R@1, R@10 and the mean recall on each of the {test split: its label}."""
    columns = []
    for split, label in tests.items():
        evaluation = Evaluation(split)
        columns += recall_columns(evaluation, split, label, score="contrastive", ks=(1, 10))
        columns.append(Column(f"{split}_mean", f"{label} mean R", evaluation, ("contrastive",), mean=True))
    return tuple(columns)


def _suite(
    name: str,
    *,
    config: str,
    tests: dict[str, str],
    validation: tuple[str, ...],
    sizes: tuple[int, ...],
    steps: int,
    rates: tuple[float, ...],
) -> Suite:
    """A small suite on one data set.

    Args:
      name: of the suite.
      config: of the whole method.
      tests: {test split: its label}.
      validation: splits that choose the learning rate.
      sizes: numbers of codes; the last is the config's.
      steps: budget of each run.
      rates: grid of learning rates around the config's.
    """
    evaluations, columns = tuple(map(Evaluation, tests)), contrastive_columns(tests)
    groups = (
        ("ablation", "Parts of the method", ABLATIONS),
        ("codes", "Number of codes", (*codebook_sizes(sizes), Ablation(WHOLE, f"{sizes[-1]:,} codes"))),
        ("sensitivity", "Sensitivity to the codebook's settings", (Ablation(WHOLE, "as in the config"), *_SENSITIVITY)),
    )
    rows = {}
    for _, _, ablations in groups:
        for a in ablations:
            rows.setdefault(a.name, Row(a.name, a.label, config, a.overrides, evaluations, against=a.against))
    tables = tuple(
        Table(table, title, columns, tuple(Line(a.label, (a.name,)) for a in ablations), note=RECALL_NOTE)
        for table, title, ablations in groups
    )
    tables += (
        Table(
            "stability",
            "Stability",
            STABILITY_COLUMNS,
            tuple(Line(a.label, (a.name,)) for a in ABLATIONS),
            note=STABILITY_NOTE,
        ),
    )
    return Suite(name, tuple(rows.values()), tables, Search(tuple(map(Evaluation, validation)), steps, rates))


# The ratio of the number of codes to the batch of 64 is about that of 500, 1000, 2000 and 4000 to the paper's 512.
EMOJI = _suite(
    "emoji",
    config="emoji_scratch",
    steps=500,
    sizes=(64, 125, 250, 500),
    tests={"test_vendor": "vendor", "test_concept": "concept"},
    validation=("val_vendor", "val_concept"),
    rates=(1e-3, 2e-3, 4e-3),
)
SCENES = _suite(
    "scenes",
    config="scenes",
    steps=250,
    sizes=(64, 125, 250, 500),
    tests={"test": "scenes"},
    validation=("val",),
    rates=(1e-3, 2e-3),
)
