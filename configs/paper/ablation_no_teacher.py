"""A row of the ablation at full size: codebook without teacher.

  cbalign train --config=configs/paper/ablation_no_teacher.py --workdir=runs/paper/no_teacher
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "pretrain.py")
    c.codebook.teacher = False
    return c
