"""Text assignment at full size, the stage between pretraining and NLVR2 (ALBEF's recipe, `configs/NLVR_pretrain.yaml`).

  cbalign train --config=paper/nlvr2_pretrain --workdir=runs/paper/nlvr2_pretrain

Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "vqa.py")
    c.task = "nlvr2_pretrain"
    c.data.name = "coco_karpathy+visual_genome+sbu+cc3m"
    c.data.train_split = "train"
    c.data.image_size = 256
    c.data.crop_scale = (0.2, 1.0)
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.warmup_steps = 100
    c.train.batch_size = 512
    c.train.epochs = 1
    return c
