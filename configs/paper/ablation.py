"""Full-size ablations, each with one component of the method removed or replaced.

  cbalign train --config=paper/ablation:sinkhorn --workdir=runs/paper/sinkhorn
  cbalign evaluate --workdir=runs/paper/sinkhorn --config=paper/zero_shot_coco

The recipe is that of `paper/pretrain`, line by line, but for what a row changes. The name after the colon selects the
ablation; `cbalign/experiments/ablations.py` lists them. `cbalign suite --suite=paper` runs all of them. Written for 8
accelerators; not yet run at full size.
"""

from cbalign.config import derived_from, override
from cbalign.experiments.ablations import paper_ablation


def get_config(row: str = ""):
    c = derived_from(__file__, "pretrain.py")
    override(c, paper_ablation(row).overrides)
    return c
