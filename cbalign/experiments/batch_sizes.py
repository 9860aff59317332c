"""The suite `icons`: whether the codebook helps at small and at large batches, on a quarter of a million icons.

ProtoCLIP reports that prototypes help at batches of 64 and cost recall at 512.
"""

from cbalign.experiments.ablations import ABLATIONS, WHOLE, Ablation
from cbalign.experiments.small import RECALL_NOTE, STABILITY_COLUMNS, STABILITY_NOTE, contrastive_columns
from cbalign.experiments.suite import Evaluation, Line, Row, Search, Suite, Table

_CONFIG = "icons_small"
_BATCH = 64
_MOMENTUM = 0.98
"""Pairs of a batch of the config, and its teacher's momentum."""

_SIZES = (64, 256, 1024)
_TESTS = {"test_style_mono": "style", "test_concept": "concept"}
_SOFTER = "codebook.temperature=0.2"

# The config has neither matching nor masked tokens, hence other labels than at full size.
_LABELS = {
    "cross_modal": "cross-modal contrast (ALBEF's)",
    "intra_modal": "+ intra-modal contrast",
    "soft_intra": "+ soft intra-modal targets",
    WHOLE: "+ codebook (CODIS)",
    "embed": "features mixed of codes (FDT)",
    "fixed_tau_no_codebook": "τ fixed, no codebook",
    "fixed_tau": "τ fixed, codebook",
}
_BY_NAME = {ablation.name: ablation for ablation in ABLATIONS}
_ABLATIONS = (
    *(_BY_NAME[name] for name in _LABELS),
    Ablation("tau_c_0.2", "codebook, τ_c = 0.2", (_SOFTER,), "soft_intra"),
    Ablation(
        "fixed_tau_tau_c_0.2",
        "τ fixed, codebook, τ_c = 0.2",
        (*_BY_NAME["fixed_tau"].overrides, _SOFTER),
        "fixed_tau_no_codebook",
    ),
)


def _row(ablation: Ablation, batch: int) -> Row:
    """A row that sees as many pairs as all others, whatever its batch.

    The teacher's momentum keeps its time constant in pairs: m^(batch ratio), as in Busbridge et al., *How to Scale Your
    EMA* (2023).
    """
    ratio = batch // _BATCH
    overrides = (*ablation.overrides, f"train.batch_size={batch}", f"teacher.momentum={_MOMENTUM**ratio:.4f}")
    return Row(
        _name(ablation.name, batch),
        _label(ablation),
        _CONFIG,
        overrides,
        tuple(map(Evaluation, _TESTS)),
        against=_name(ablation.against, batch) if ablation.against else "",
        steps_share=1 / ratio,
    )


def _name(ablation: str, batch: int) -> str:
    return f"batch_{batch}_{ablation}"


def _label(ablation: Ablation) -> str:
    return _LABELS.get(ablation.name, ablation.label)


def _lines(batch: int) -> tuple[Line, ...]:
    return tuple(Line(_label(ablation), (_name(ablation.name, batch),)) for ablation in _ABLATIONS)


ICONS = Suite(
    "icons",
    tuple(_row(ablation, batch) for batch in _SIZES for ablation in _ABLATIONS),
    (
        *(
            Table(
                f"batch_{batch}", f"Batches of {batch:,}", contrastive_columns(_TESTS), _lines(batch), note=RECALL_NOTE
            )
            for batch in _SIZES
        ),
        Table("stability", f"Stability at batches of {_BATCH}", STABILITY_COLUMNS, _lines(_BATCH), note=STABILITY_NOTE),
    ),
    Search(tuple(map(Evaluation, ("val_style_mono", "val_concept"))), steps=2000, rates=(2e-3, 4e-3)),
)
