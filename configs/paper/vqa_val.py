"""VQA v2 at full size, trained on `train` only, so that `val` can be evaluated without the evaluation server.

  cbalign data build vqa_v2 --manual-dir=DIR
  cbalign train --config=paper/vqa_val --workdir=runs/paper/vqa_val
  cbalign evaluate --workdir=runs/paper/vqa_val --split=val

The recipe is that of `paper/vqa`, line by line, but for the data: Visual Genome's questions are excluded, since half
of its images are from COCO, including images of `val`. Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.data.train_split = "train"
    return c
