"""A row of the ablation at full size: τ fixed, no codebook.

  cbalign train --config=configs/paper/ablation_fixed_tau_no_codebook.py --workdir=runs/paper/fixed_tau_no_codebook
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.contrast.learn_temperature = False
    c.loss_weights.code = 0.0
    return c
