"""The rows of the ablation at full size, each with one part of the method removed or replaced.

  cbalign train --config=paper/ablation:sinkhorn --workdir=runs/paper/sinkhorn
  cbalign evaluate --workdir=runs/paper/sinkhorn --config=paper/zero_shot_coco

The row is named after the colon; `cbalign/experiments/ablations.py` lists them. `cbalign suite --suite=paper` runs them
all. Written for 8 accelerators; not run at full size yet.
"""

from cbalign.config import derived_from, override
from cbalign.experiments.ablations import paper_ablation


def get_config(row: str = ""):
    c = derived_from(__file__, "pretrain.py")
    override(c, paper_ablation(row).overrides)
    return c
