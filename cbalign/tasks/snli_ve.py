"""Visual entailment (SNLI-VE): does an image bear out a sentence, contradict it, or leave it open?"""

from cbalign.models.snli_ve import EntailmentModel
from cbalign.tasks.finetune import PRETRAINING_HEADS, Classify
from cbalign.tasks.transfer import Rules


class SnliVe(Classify):
    """What the loop needs of SNLI-VE (ALBEF `models/model_ve.py`); classes as `sources.schema` numbers them."""

    records = "entailment"
    model_class = EntailmentModel
    classes = ("contradiction", "neutral", "entailment")
    rules = {
        "pretrain": Rules(fresh=("class_head/.*",), unused=(
            *PRETRAINING_HEADS, "masked_token_head/.*", "image_projection/.*")),
        "snli_ve": Rules(),
    }
