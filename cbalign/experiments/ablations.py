"""The ablation rows of the method, as changes to a config that has every part on.

The config `paper/ablation:NAME` makes a row at full size; the small suites run the same rows on emoji and scenes.
"""

import dataclasses

from cbalign.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One part added, removed or replaced.

    Attributes:
      name: of the row.
      label: as tables show it.
      overrides: "a.b=value" each, on the whole method.
      against: the row it is compared with, which differs in one thing.
    """

    name: str
    label: str
    overrides: tuple[str, ...] = ()
    against: str = ""


WHOLE = "codebook"
"""The row of the whole method."""

_NO_CODEBOOK = "loss_weights.code=0.0"
_FIXED_TAU = "contrast.learn_temperature=False"

# The parts are added one by one; then single ones are removed from the whole or replaced.
ABLATIONS = (
    # ALBEF contrasts across the modalities only, and its teacher sees the student's own view of the image.
    Ablation(
        "cross_modal",
        "MLM + ITM + cross-modal contrast (ALBEF)",
        ("contrast.terms=i2t,t2i", "data.second_view=False", _NO_CODEBOOK),
    ),
    Ablation(
        "intra_modal",
        "+ intra-modal contrast (TCL's global part)",
        ("contrast.soft_intra=False", _NO_CODEBOOK),
        "cross_modal",
    ),
    Ablation("soft_intra", "+ soft intra-modal targets", (_NO_CODEBOOK,), "intra_modal"),
    Ablation(WHOLE, "+ codebook (CODIS)", (), "soft_intra"),
    Ablation("no_teacher", "codebook without teacher", ("codebook.teacher=False",), WHOLE),
    Ablation("no_transport_loss", "codebook without L_ot", ("codebook.ot_weight=0.0",), WHOLE),
    # SwAV's iterations and entropic weight.
    Ablation(
        "sinkhorn",
        "Sinkhorn for IPOT",
        ("codebook.solver=sinkhorn", "codebook.iterations=3", "codebook.epsilon=0.05"),
        WHOLE,
    ),
    # What is compared is then a mixture of codes, as in FDT.
    Ablation("embed", "features mixed of codes (FDT)", ("codebook.embed=True",), WHOLE),
    # With the codebook on, the learned temperature ends elsewhere; with τ fixed, that cannot explain a difference.
    Ablation("fixed_tau_no_codebook", "τ fixed, no codebook", (_FIXED_TAU, _NO_CODEBOOK), "soft_intra"),
    Ablation("fixed_tau", "τ fixed, codebook", (_FIXED_TAU,), "fixed_tau_no_codebook"),
)

PAPER_SIZES = (500, 1000, 2000, 4000)
"""Numbers of codes the paper compares; the last is the whole method's."""


def codebook_sizes(sizes: tuple[int, ...]) -> tuple[Ablation, ...]:
    """A row for each number of codes but the last, which is the whole method's."""
    return tuple(
        Ablation(f"codes_{size}", f"{size:,} codes", (f"codebook.num_codes={size}",), WHOLE) for size in sizes[:-1]
    )


PAPER_ABLATIONS = tuple(a for a in (*ABLATIONS, *codebook_sizes(PAPER_SIZES)) if a.name != WHOLE)
"""The rows at full size besides the whole method, which is the config `paper/pretrain`."""


def paper_ablation(name: str) -> Ablation:
    """The row of that name at full size.

    Raises:
      UserError: there is none.
    """
    for ablation in PAPER_ABLATIONS:
        if ablation.name == name:
            return ablation
    names = ", ".join(a.name for a in PAPER_ABLATIONS)
    raise UserError(f"no ablation {name!r}; name one as in --config=paper/ablation:sinkhorn, of {names}")
