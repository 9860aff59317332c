"""A row of the ablation at full size: τ fixed, codebook.

  cbalign train --config=configs/paper/ablation_fixed_tau.py --workdir=runs/paper/fixed_tau
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.contrast.learn_temperature = False
    return c
