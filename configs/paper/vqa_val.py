"""VQA v2 at full size, trained on `train` only, for figures on `val` that need no evaluation server.

  cbalign data build vqa_v2 --manual-dir=DIR
  cbalign train --config=paper/vqa_val --workdir=runs/paper/vqa_val
  cbalign evaluate --workdir=runs/paper/vqa_val --split=val

Visual Genome's questions are left out: half of its images are COCO's, those of `val` among them. Written for 8
accelerators; not run at full size yet.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.data.train_split = "train"
    return c
