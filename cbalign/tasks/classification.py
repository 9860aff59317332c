"""What the tasks with a head over classes share: loss, evaluation, the text-only baseline, prediction."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.distributed import devices
from cbalign.evaluation.calls import Call, batches
from cbalign.evaluation.classification import blind_guess, classification_scores
from cbalign.losses.classes import class_losses
from cbalign.tasks.base import Evaluation, Split, Task, no_progress, text_limits


class Classification(Task):
    """A head over classes on the fused [CLS] state, with the teacher's soft targets (ALBEF: NLVR2, SNLI-VE)."""

    log_metrics = ("loss", "class_hard", "class_soft", "class_accuracy")

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """See `Task.loss`; batch: "image" and perhaps "image_second", "text", "label" int32 [b], "index"."""
        del queue
        alpha = jnp.asarray(self.alpha(step), jnp.float32)
        inputs = (self.images(batch), batch["text"])
        logits = self.student(params, batch["index"], rng).apply_with_dropout("classify", *inputs)
        soft = None
        if teacher:
            soft = self.teacher(teacher, batch["index"], rng).apply_with_dropout("classify", *inputs)
        metrics = class_losses(logits, batch["label"], soft, alpha=alpha)
        metrics |= {"loss": metrics["class"], "alpha": alpha}
        return metrics["loss"], jax.lax.stop_gradient(metrics)

    def label_shapes(self):
        """See `Task.label_shapes`."""
        return {"label": ((), np.int32)}

    def images(self, batch) -> tuple:
        """The images of a batch, one or two arrays."""
        return tuple(batch[name] for name in ("image", "image_second")[: self.images_per_record])

    def chance_levels(self):
        """See `Task.chance_levels`."""
        return {"class_hard": float(np.log(len(self.classes))), "class_accuracy": 1 / len(self.classes)}

    @functools.cached_property
    def probabilities(self):
        """(params, images, ids) -> float32 [b, classes], compiled."""

        def classify(params, images, ids):
            return jax.nn.softmax(self.model.apply({"params": params}, images, ids, method="classify"), axis=-1)

        return jax.jit(classify)

    def evaluate(self, params, split, *, quick=False, progress=None):
        """See `Task.evaluate`: accuracy overall and of each class, and the confusion matrix."""
        del quick
        progress, found = progress or no_progress, []
        classify = functools.partial(devices.spread_rows(self.probabilities, whole=1), devices.copy_to_local(params))
        size, batch_size = self.config.data.image_size, self.config.eval.batch_size
        for batch, valid in split.batches(image_size=size, batch_size=batch_size):
            probabilities = np.asarray(classify(self.images(batch), batch["text"]))
            found += np.argmax(probabilities, axis=-1)[:valid].tolist()
            progress("sentences", len(found), len(split))
        return Evaluation(self.scores(split, found), found)

    def evaluation_calls(self, size, *, devices, quick=False):
        """See `Task.evaluation_calls`."""
        del devices, quick
        b, data = self.config.eval.batch_size, self.config.data
        image = jax.ShapeDtypeStruct((b, data.image_size, data.image_size, 3), np.uint8)
        rows = ((image,) * self.images_per_record, jax.ShapeDtypeStruct((b, text_limits(self.config)[0]), np.int32))
        return [Call("classify", self.probabilities, (), rows, batches(size.records, b))]

    def scores(self, split: Split, found: list) -> dict:
        """The result of predicted class numbers."""
        return {
            "images": split.records.image_count,
            "sentences": len(split),
            "chance": {"overall": 100 / len(self.classes)},
            **classification_scores(found, split.columns.arrays["label"], self.classes),
        }

    def truths(self, split, row):
        """See `Task.truths`: the class of the record."""
        return (self.classes[int(split.columns.arrays["label"][row])],)

    def baselines(self, split, train, *, own_data):
        """The most frequent class of each text in training: what the text gives away without the image."""
        del own_data
        seen = train()
        guesses = blind_guess(first_texts(seen), np.asarray(seen.columns.arrays["label"]).tolist(), first_texts(split))
        scores = classification_scores(guesses, split.columns.arrays["label"], self.classes)
        return {"blind_guess": scores["accuracy"]}, []

    def predict(self, params, images, ids, *, match=False):
        """See `Task.predict`: the probability of each class."""
        if match:
            return super().predict(params, images, ids, match=match)
        return list(self.classes), np.asarray(self.probabilities(params, images, ids))[0]


def first_texts(split: Split) -> list[str]:
    """The only text of each record."""
    return [texts[0] for texts in split.records.texts]
