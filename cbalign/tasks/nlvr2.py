"""Statements about two images (NLVR2), and text assignment, the pretraining step before it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.distributed import devices
from cbalign.evaluation.calls import Call, batches
from cbalign.evaluation.classification import classification_scores, consistency
from cbalign.losses.classes import assign_images, class_losses
from cbalign.models.nlvr2 import AssignmentModel, PairModel
from cbalign.tasks.base import PRETRAINING_HEADS, Evaluation, Task, no_progress, text_limits
from cbalign.tasks.classification import Classification
from cbalign.tasks.transfer import Transfer

# Both blocks of a pair start from one fusion layer; its keys and values become the ones the pair shares.
_PAIRS = (
    (r"paired_encoder/layer_(\d+)_(?:first|second)/(.*)", r"fusion_encoder/layer_\1/\2"),
    (r"paired_encoder/layer_(\d+)_(key|value)/(.*)", r"fusion_encoder/layer_\1/cross_attention/\2/\3"),
)
# ALBEF draws distractors at this temperature, whatever the model has learned.
_DISTRACTOR_TEMPERATURE = 0.07


class Nlvr2(Classification):
    """NLVR2 as ALBEF trains it (`models/model_nlvr.py`).

    Text assignment has no teacher, so the teacher starts as a copy of the student after loading; the reference copies
    before loading, so that its teacher starts from other weights and catches up by averaging.
    """

    name = "nlvr2"
    record_kind = "image_pairs"
    images_per_record = 2
    result_kind = "nlvr2"
    classes = ("false", "true")
    prediction_input = "a statement about two images, the left one first"
    starts_from = {
        "nlvr2_pretrain": Transfer(fresh=("class_head/.*",), unused=("assignment_head/.*", "image_projection/.*")),
        "pretrain": Transfer(
            renames=_PAIRS,
            fresh=("class_head/.*",),
            unused=(*PRETRAINING_HEADS, "masked_token_head/.*", "image_projection/.*"),
        ),
        "nlvr2": Transfer(),
    }

    def build_model(self, sizes):
        """See `Task.build_model`."""
        return PairModel(sizes)

    def scores(self, split, found):
        """See `Classification.scores`; with the consistency over the pairs of a statement."""
        result = super().scores(split, found)
        labels, names = split.columns.arrays["label"], split.records.columns["identifier"]
        result["accuracy"]["consistency"] = consistency(found, labels, names)
        return result


class TextAssignment(Task):
    """Text assignment as ALBEF trains it (`models/model_pretrain_nlvr.py`): which of two images is a text about?

    Trains on captions, without a teacher. `image_projection` serves the draw of distractors alone. The distractors of a
    row come from its group of `itm.group_size` rows.
    """

    name = "nlvr2_pretrain"
    record_kind = "captions"
    result_kind = "nlvr2_pretrain"
    log_metrics = ("loss", "class_hard", "class_accuracy")
    classes = ("first", "second", "neither")
    starts_from = {
        "pretrain": Transfer(
            renames=_PAIRS, fresh=("assignment_head/.*",), unused=(*PRETRAINING_HEADS, "masked_token_head/.*")
        ),
        "nlvr2_pretrain": Transfer(),
    }

    def build_model(self, sizes):
        """See `Task.build_model`."""
        return AssignmentModel(sizes, self.config.model.embed_dim)

    def teacher_params(self, params):
        """None."""
        del params
        return {}

    @classmethod
    def check(cls, config, *, devices=1):
        """See `Task.check`; a text needs two distractors in its group."""
        super().check(config, devices=devices)
        cls.check_groups(config, devices=devices, least=3)

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """See `Task.loss`; batch: "image", "text", "id" and "index" int32 [b]."""
        del teacher, queue, step
        draw, dropout = jax.random.split(rng)
        model = self.student(params, batch["index"], dropout)
        logits, labels = self._assigned(model, batch, draw, group=self.config.itm.group_size)
        metrics = class_losses(logits, labels, alpha=0.0)
        metrics["loss"] = metrics["class"]
        return metrics["loss"], jax.lax.stop_gradient(metrics)

    def label_shapes(self):
        """See `Task.label_shapes`."""
        return {"id": ((), np.int32)}

    def _assigned(self, model, batch, draw, *, group: int):
        """(logits [b, 3], labels int32 [b]) of one drawn assignment within groups of consecutive rows."""
        encoded, rows = model.image(batch["image"]), len(batch["text"])
        shared = {
            "feature": jax.lax.stop_gradient(encoded["feature"]),
            "tokens": encoded["tokens"],
            "ids": batch["id"],
            "index": batch["index"],
        }
        span = max(1, group // rows)
        shared = devices.gather_within(shared, span)

        def assign(feature, ids, index):
            return assign_images(draw, feature @ feature.T / _DISTRACTOR_TEMPERATURE, ids, sample_index=index)

        grouped = [shared[name].reshape(-1, group, *shared[name].shape[1:]) for name in ("feature", "ids", "index")]
        drawn = jax.vmap(assign)(*grouped)
        start = group * jnp.arange(grouped[0].shape[0], dtype=jnp.int32)[:, None]
        drawn = {**drawn, "first": drawn["first"] + start, "second": drawn["second"] + start}
        own = devices.device_index() % span * rows if span > 1 else 0
        drawn = {name: jax.lax.dynamic_slice_in_dim(x.reshape(-1), own, rows) for name, x in drawn.items()}
        first, second = (shared["tokens"][drawn[name]] for name in ("first", "second"))
        fused = model.apply_with_dropout("fuse_pair", batch["text"], first, second)
        return model.apply("assign", fused), drawn["label"]

    def chance_levels(self):
        """See `Task.chance_levels`."""
        return {"class_hard": float(np.log(3)), "class_accuracy": 1 / 3}

    @functools.cached_property
    def _drawn_probabilities(self):
        """(params, batch as in `loss`, number of the batch) -> (probabilities [b, 3], labels [b]), compiled."""

        def assigned(params, batch, number):
            draw = jax.random.fold_in(jax.random.key(0), number)
            model = self.student(params, batch["index"], draw)
            model.rng = None
            logits, labels = self._assigned(model, batch, draw, group=len(batch["text"]))
            return jax.nn.softmax(logits, axis=-1), labels

        return jax.jit(assigned)

    def evaluate(self, params, split, *, quick=False, progress=None):
        """See `Task.evaluate`: accuracy over one drawn assignment of each image's first caption.

        The images of an evaluation batch are one another's distractors, so the figure depends on `eval.batch_size`.
        """
        del quick
        progress, found, labels = progress or no_progress, [], []
        params = devices.fetch(params)
        size, batch_size = self.config.data.image_size, self.config.eval.batch_size
        for number, (batch, valid) in enumerate(split.batches(image_size=size, batch_size=batch_size)):
            rows = np.arange(number * batch_size, (number + 1) * batch_size, dtype=np.int32)
            inputs = {name: batch[name] for name in ("image", "text", "id")} | {"index": rows}
            probabilities, drawn = self._drawn_probabilities(params, inputs, number)
            found += np.argmax(np.asarray(probabilities), axis=-1)[:valid].tolist()
            labels += np.asarray(drawn)[:valid].tolist()
            progress("captions", len(found), len(split))
        scores = classification_scores(found, labels, self.classes)
        chance = {"overall": 100 / len(self.classes)}
        return Evaluation(
            {"images": split.records.image_count, "captions": len(split), "chance": chance, **scores}, found
        )

    def evaluation_calls(self, size, *, devices, quick=False):
        """See `Task.evaluation_calls`: one device takes a whole batch, whose rows are one another's distractors."""
        del devices, quick
        b, data, shape = self.config.eval.batch_size, self.config.data, jax.ShapeDtypeStruct
        batch = {
            "image": shape((b, data.image_size, data.image_size, 3), np.uint8),
            "text": shape((b, text_limits(self.config)[0]), np.int32),
            "id": shape((b,), np.int32),
            "index": shape((b,), np.int32),
        }
        rows = (batch, shape((), np.int32))
        return [Call("assign texts", self._drawn_probabilities, (), rows, batches(size.records, b), spread=False)]
