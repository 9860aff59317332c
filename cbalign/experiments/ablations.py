"""The ablation rows of the method, as changes to a config that has every part on.

The same changes are `configs/paper/ablation_*.py` at full size and rows of the small suites; a test holds the two equal.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One part put in or taken out.

    Attributes:
      name: of the row.
      label: as tables show it.
      overrides: "a.b=value" each, on the whole method.
      against: the row before, which differs in one thing.
    """

    name: str
    label: str
    overrides: tuple[str, ...] = ()
    against: str = ""


_NO_CODEBOOK = "loss_weights.code=0.0"
_FIXED_TAU = "contrast.learn_temperature=False"

# The parts are added one by one, then single ones are taken out of the whole or exchanged.
ABLATIONS = (
    # ALBEF contrasts across the modalities alone, and its teacher sees the student's own view of the image.
    Ablation("cross_modal", "MLM + ITM + cross-modal contrast (ALBEF)",
             ("contrast.terms=i2t,t2i", "data.second_view=False", _NO_CODEBOOK)),
    Ablation("intra_modal", "+ intra-modal contrast (TCL's global part)", ("contrast.soft_intra=False", _NO_CODEBOOK),
             "cross_modal"),
    Ablation("soft_intra", "+ soft intra-modal targets", (_NO_CODEBOOK,), "intra_modal"),
    Ablation("codebook", "+ codebook (CODIS)", (), "soft_intra"),
    Ablation("no_teacher", "codebook without teacher", ("codebook.teacher=False",), "codebook"),
    Ablation("no_transport_loss", "codebook without L_ot", ("codebook.ot_weight=0.0",), "codebook"),
    # SwAV's sweeps and entropic weight.
    Ablation("sinkhorn", "Sinkhorn for IPOT",
             ("codebook.solver=sinkhorn", "codebook.iterations=3", "codebook.epsilon=0.05"), "codebook"),
    # With the codebook on, the temperature ends elsewhere; with it fixed, that cannot be what helps.
    Ablation("fixed_tau_no_codebook", "τ fixed, no codebook", (_FIXED_TAU, _NO_CODEBOOK), "soft_intra"),
    Ablation("fixed_tau", "τ fixed, codebook", (_FIXED_TAU,), "fixed_tau_no_codebook"),
)


def codebook_sizes(sizes) -> tuple[Ablation, ...]:
    """A row for each number of codes; the last is the whole method's own and is not run again."""
    return tuple(
        Ablation(f"codes_{size}", f"{size:,} codes", (f"codebook.num_codes={size}",), "codebook") for size in sizes[:-1]
    )
