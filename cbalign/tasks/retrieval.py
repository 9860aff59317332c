"""Fine-tuning for image-text retrieval: pretraining's losses without the masked tokens, on images with ids."""

from cbalign.tasks.pretrain import Pretrain


class Retrieval(Pretrain):
    """What the loop needs of retrieval fine-tuning (ALBEF `models/model_retrieval.py`, TCL likewise).

    The two contrastive terms across modalities, with the teacher's soft targets and queues of features and image
    ids: with `contrast.joint_positives` every key of the same image is a positive, the target uniform over them.
    Matching on hard negatives, none of them of the pair's own image. On top of the reference the codebook's losses
    and the terms within a modality, each on or off by `loss_weights.code` and `contrast.terms`.

    Two departures from the reference: the temperature is kept in its range here too (there it keeps falling), and
    captions are cut to `data.max_tokens` (there one long caption takes a batch's memory).

    The parameters are those of pretraining, the masked-token head included, so that weights pass from the one to the
    other as they are; nothing here trains that head, and a group ("masked_token_head/.*", 0.0, 0.0) in
    `optimizer.groups` keeps weight decay off it.
    """

    def chance_levels(self) -> dict:
        """{metric: its value, in nats or as a share, for a model that knows nothing}, of the losses that are on."""
        levels, weights = super().chance_levels(), self.config.loss_weights
        on = (self.config.contrast.terms if weights.ica else ()) + (("i2p", "t2p") if weights.code else ())
        on += ("itm", "itm_accuracy") if weights.itm else ()
        return {name: levels[name] for name in on}
