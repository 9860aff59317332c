"""Visual entailment (SNLI-VE): does an image entail a sentence, contradict it, or leave it open?"""

from cbalign.models.snli_ve import EntailmentModel
from cbalign.tasks.base import PRETRAINING_HEADS
from cbalign.tasks.classification import Classification
from cbalign.tasks.transfer import Transfer


class SnliVe(Classification):
    """SNLI-VE as ALBEF trains it (`models/model_ve.py`); classes in the order of `datasets.schema`."""

    name = "snli_ve"
    record_kind = "entailment"
    result_kind = "snli_ve"
    classes = ("contradiction", "neutral", "entailment")
    prediction_input = "a hypothesis about the image"
    starts_from = {
        "pretrain": Transfer(
            fresh=("class_head/.*",), unused=(*PRETRAINING_HEADS, "masked_token_head/.*", "image_projection/.*")
        ),
        "snli_ve": Transfer(),
    }

    def build_model(self, sizes):
        """See `Task.build_model`."""
        return EntailmentModel(sizes)
