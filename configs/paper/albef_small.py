"""ALBEF on 1.1M images (COCO, Visual Genome, SBU) for 10 epochs at batch 128: what a small lab can afford.

  for name in coco_karpathy visual_genome sbu; do cbalign data build $name --manual-dir=DIR; done
  cbalign train --config=paper/albef_small --workdir=runs/paper/albef_small    # with weights, as in `paper/albef`
  cbalign evaluate --workdir=runs/paper/albef_small --config=paper/zero_shot_coco

A seventh of the pairs that `paper/albef` sees. ALBEF's figures in this setting are those of its re-run in the paper
of ViCHA (Shukor et al., 2022): zero-shot COCO 59.5/38.3, Flickr30K 81.3/64.7, VQA 72.5, NLVR2 75.7/76.3. That paper's
recipe (ViCHA's `configs/Pretrain.yaml`, which is ALBEF's but for these lines) and what is here:

  batch_size: 32                       train.batch_size = 128              on each of 4 GPUs
  schedular.epochs: 11                 train.epochs = 10                   differs: the paper says 10

- There about 5M region descriptions of Visual Genome are used (ViCHA, issue 3), here the 0.77M of ALBEF's list, so that
  an epoch has 2.2M pairs instead of 6.4M: expect lower figures, or train longer at a higher cost.
- Hard negatives come from groups of 32 pairs, the batch of one GPU there.
- There fine-tuning uses images of 380 px and smaller batches (retrieval 64, VQA 32 without Visual Genome's questions,
  NLVR2 16); here the recipes of `paper/retrieval_coco`, `paper/vqa` and `paper/nlvr2`.

What else differs from ALBEF is said in `paper/albef`. Not yet run at full size.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "albef.py")
    c.data.name = "coco_karpathy+visual_genome+sbu"
    c.itm.group_size = 32
    c.train.batch_size = 128
    c.train.epochs = 10
    return c
