"""Fine-tuning for image-text retrieval: pretraining's losses without the masked tokens, on images with ids."""

from cbalign.errors import UserError
from cbalign.tasks.pretrain import Pretrain
from cbalign.tasks.transfer import Transfer


class Retrieval(Pretrain):
    """Retrieval fine-tuning (ALBEF `models/model_retrieval.py`, TCL likewise).

    The two contrastive terms across modalities, with the teacher's soft targets and queues of features and image ids:
    with `contrast.joint_positives` every key of the same image is a positive, the target uniform over them. Matching on
    hard negatives, none of them of the pair's own image. On top of the reference the codebook's losses and the terms
    within a modality, each on or off by `loss_weights.code` and `contrast.terms`.

    Two departures from the reference: the temperature is kept in its range here too (there it keeps falling), and
    captions are cut to `data.max_tokens` (there one long caption takes a batch's memory).

    The parameters are those of pretraining, the masked-token head included, so that weights pass from one to the other
    unchanged; nothing here trains that head, and a group ("masked_token_head/.*", 0.0, 0.0) in `optimizer.groups` keeps
    weight decay off it.
    """

    name = "retrieval"
    # A converted ALBEF checkpoint lacks the codebook, a fine-tuned one the masked-token head.
    starts_from = {
        "pretrain": Transfer(fresh=("codebook/.*", "masked_token_head/.*")),
        "retrieval": Transfer(fresh=("codebook/.*", "masked_token_head/.*")),
    }

    @classmethod
    def check(cls, config, *, devices=1):
        """See `Pretrain.check`; nothing trains masked tokens here."""
        super().check(config, devices=devices)
        if config.loss_weights.mlm:
            raise UserError(
                f"config: loss_weights.mlm={config.loss_weights.mlm}: the task retrieval has no masked tokens; "
                "set it to 0"
            )

    def chance_levels(self):
        """See `Task.chance_levels`; of the losses that are on."""
        levels, weights = super().chance_levels(), self.config.loss_weights
        on = (self.config.contrast.terms if weights.ica else ()) + (("i2p", "t2p") if weights.code else ())
        on += ("itm", "itm_accuracy") if weights.itm else ()
        return {name: levels[name] for name in on}
