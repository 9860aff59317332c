"""Statements about two images (NLVR2), and text assignment, the step before it."""

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.losses.classes import assign_images, class_losses
from cbalign.models.nlvr2 import AssignmentModel, PairModel
from cbalign.tasks.finetune import PRETRAINING_HEADS, Classify, Finetune
from cbalign.tasks.transfer import Rules

# Both blocks of a pair start from one fusion layer; its keys and values become the ones they share.
_PAIRS = (
    (r"paired_encoder/layer_(\d+)_(?:first|second)/(.*)", r"fusion_encoder/layer_\1/\2"),
    (r"paired_encoder/layer_(\d+)_(key|value)/(.*)", r"fusion_encoder/layer_\1/cross_attention/\2/\3"),
)
# ALBEF's temperature of the draw of distractors, whatever the model has learned.
_TEMPERATURE = 0.07


class Nlvr2(Classify):
    """What the loop needs of NLVR2 (ALBEF `models/model_nlvr.py`).

    The teacher is a copy of the student after loading; the reference copies before, so that its teacher starts from
    other weights and catches up by averaging.
    """

    records = "image_pairs"
    model_class = PairModel
    classes = ("false", "true")
    rules = {
        "nlvr2_pretrain": Rules(fresh=("class_head/.*",), unused=("assignment_head/.*", "image_projection/.*")),
        "pretrain": Rules(renames=_PAIRS, fresh=("class_head/.*",), unused=(
            *PRETRAINING_HEADS, "masked_token_head/.*", "image_projection/.*")),
        "nlvr2": Rules(),
    }


class TextAssignment(Finetune):
    """What the loop needs of text assignment (ALBEF `models/model_pretrain_nlvr.py`): which image is a text about?

    Trains on captions; there is no teacher. `image_projection` only serves the draw of distractors.
    """

    records = "captions"
    model_class = AssignmentModel
    classes = ("first", "second", "neither")
    rules = {
        "pretrain": Rules(renames=_PAIRS, fresh=("assignment_head/.*",), unused=(
            *PRETRAINING_HEADS, "masked_token_head/.*")),
        "nlvr2_pretrain": Rules(),
    }

    def teacher_params(self, params):
        """None."""
        del params
        return {}

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """The loss on one device's part of the batch, whose images are one another's distractors.

        Args:
          params: parameter tree.
          teacher, queue: none.
          batch: {"image": uint8 [b, S, S, 3], "text": int32 [b, L], "image", "index": int32 [b]}, b >= 3.
          rng: key of the step, equal on all devices.
          step: int32 scalar.

        Returns:
          (loss, {"metrics": {name: scalar}}).
        """
        del teacher, queue, step
        draw, dropout = jax.random.split(rng)
        key, _ = self.keys(dropout)
        logits, labels = self._assigned(params, batch, draw, key)
        metrics = class_losses(logits, labels, alpha=0.0)
        metrics["loss"] = metrics["class"]
        return metrics["loss"], {"metrics": jax.lax.stop_gradient(metrics)}

    def _assigned(self, params, batch, draw, key):
        """(logits [b, 3], labels int32 [b]) of one drawn assignment."""
        encoded = self.apply(params, batch["image"], method="encode_image")
        feature = jax.lax.stop_gradient(encoded["feature"])
        drawn = assign_images(draw, feature @ feature.T / _TEMPERATURE, batch["image"],
                                sample_index=batch["index"])
        first, second = encoded["tokens"][drawn["first"]], encoded["tokens"][drawn["second"]]
        fused = self.apply(params, batch["text"], first, second, method="fuse_pair", rng=key)
        return self.apply(params, fused, method="assign"), drawn["label"]

    def chance_levels(self) -> dict:
        """{metric: its value for a model that knows nothing}."""
        return {"class_hard": float(np.log(3)), "class_accuracy": 1 / 3}

    def functions(self):
        """(params, batch as in `loss`, number of the batch) -> (probabilities [b, 3], labels [b]), compiled."""

        def assigned(params, batch, number):
            logits, labels = self._assigned(params, batch, jax.random.fold_in(jax.random.key(0), number), None)
            return jax.nn.softmax(jnp.asarray(logits), axis=-1), labels

        return jax.jit(assigned)
