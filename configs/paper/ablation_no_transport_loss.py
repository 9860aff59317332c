"""A row of the ablation at full size: codebook without L_ot.

  cbalign train --config=configs/paper/ablation_no_transport_loss.py --workdir=runs/paper/no_transport_loss
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.codebook.ot_weight = 0.0
    return c
