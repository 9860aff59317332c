"""Goes on from configs/scenes_long.py with image-text matching: what a text as a whole says of a picture.

  cbalign train --config=configs/scenes_long.py --workdir=runs/scenes_long
  cbalign train --config=configs/scenes_itm.py --workdir=runs/scenes_itm

Once words bind to shapes, matching is learned quickly; before, it only costs time. The tasks start from here: without it
their [CLS] has gathered nothing, and text assignment stays at chance (300 steps, loss 1.09).
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "scenes_long.py")
    c.init.weights = ("runs/scenes_long",)
    c.loss_weights.itm = 1.0
    c.train.steps = 1000
    return c
