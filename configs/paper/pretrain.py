"""Pretraining at full size on the paper's 4M images (COCO, Visual Genome, SBU, CC3M; about 5M pairs).

  for name in coco_karpathy visual_genome sbu cc3m; do cbalign data build $name --manual-dir=DIR; done
  cbalign plan --config=paper/pretrain --topology=v4-32        # memory and cost
  cbalign train --config=paper/pretrain --workdir=runs/paper/pretrain

ViT-B/16 at 256 pixels, six text layers and six fusion layers of BERT-base's width, 4,000 codes, queues of 65,536, batch
size 512, 30 epochs. ALBEF and TCL start from DeiT-B and BERT-base; `cbalign convert` converts both, for
--config.init.weights=weights/deit,weights/bert.

Not yet run at full size; `cbalign plan` compiles it for hardware you do not have.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.data.name = "coco_karpathy+visual_genome+sbu+cc3m"
    c.data.plain_rgb = True  # as published
    c.model.dtype = "bfloat16"
    return c
