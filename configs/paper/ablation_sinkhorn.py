"""A row of the ablation at full size: Sinkhorn for IPOT.

  cbalign train --config=configs/paper/ablation_sinkhorn.py --workdir=runs/paper/sinkhorn
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.codebook.solver = "sinkhorn"
    c.codebook.iterations = 3
    c.codebook.epsilon = 0.05
    return c
