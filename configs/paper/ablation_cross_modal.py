"""A row of the ablation at full size: MLM + ITM + cross-modal contrast (ALBEF).

  cbalign train --config=configs/paper/ablation_cross_modal.py --workdir=runs/paper/cross_modal
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.contrast.terms = ("i2t", "t2i")
    c.data.second_view = False
    c.loss_weights.code = 0.0
    return c
