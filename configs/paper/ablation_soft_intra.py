"""A row of the ablation at full size: + soft intra-modal targets.

  cbalign train --config=configs/paper/ablation_soft_intra.py --workdir=runs/paper/soft_intra
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.loss_weights.code = 0.0
    return c
