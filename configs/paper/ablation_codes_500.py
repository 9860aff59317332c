"""A row of the ablation at full size: 500 codes.

  cbalign train --config=configs/paper/ablation_codes_500.py --workdir=runs/paper/codes_500
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.codebook.num_codes = 500
    return c
