"""A small CODIS on icons with names, for comparisons: contrast and codebook alone, from random parameters.

  cbalign suite --suite=icons --runs=runs/suite_icons --seeds=3
  cbalign train --config=icons_small --workdir=runs/icons_small

The data set is built by ./launch/local.sh --data=icons and found with TFDS_DATA_DIR=data.
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "emoji_scratch.py")
    c.data.name = "icons"
    c.data.vocabulary_size = 8000
    c.data.threads = 1
    c.loss_weights.itm = c.loss_weights.mlm = 0.0

    c.train.steps = 2000
    c.train.checkpoint_steps = 500
    c.train.eval_steps = 0

    c.eval.splits = ("val_style_mono", "val_concept")
    c.eval.best_split = ""
    c.eval.baselines = False
    return c
