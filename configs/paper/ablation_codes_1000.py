"""A row of the ablation at full size: 1,000 codes.

  cbalign train --config=configs/paper/ablation_codes_1000.py --workdir=runs/paper/codes_1000
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.codebook.num_codes = 1000
    return c
