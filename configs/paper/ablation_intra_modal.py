"""A row of the ablation at full size: + intra-modal contrast (TCL's global part).

  cbalign train --config=configs/paper/ablation_intra_modal.py --workdir=runs/paper/intra_modal
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.contrast.soft_intra = False
    c.loss_weights.code = 0.0
    return c
