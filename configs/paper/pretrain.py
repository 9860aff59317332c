"""Pretraining at full size on the paper's 4M images (COCO, Visual Genome, SBU, CC3M; about 5M pairs).

  for name in coco_karpathy visual_genome sbu cc3m; do cbalign data build $name --manual-dir=DIR; done
  cbalign plan --config=paper/pretrain --topology=v4-32        # does it fit, what does it cost
  cbalign train --config=paper/pretrain --workdir=runs/paper/pretrain

ViT-B/16 at 256 pixels, six layers of text and six of fusion from BERT-base's width, 4,000 codes, queues of 65,536 and
30 epochs of batches of 512. ALBEF and TCL start from DeiT-B and BERT-base; `cbalign convert` makes both, for
--config.init.weights=weights/deit,weights/bert.

Not run at full size yet; `cbalign plan` compiles it for hardware you do not have.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.data.name = "coco_karpathy+visual_genome+sbu+cc3m"
    c.model.dtype = "bfloat16"
    return c
