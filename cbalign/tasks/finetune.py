"""What the tasks after pretraining share: model, teacher, alpha, evaluation functions and where parameters come from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.errors import UserError
from cbalign.losses.classes import class_losses
from cbalign.tasks.pretrain import build_model
from cbalign.tasks.transfer import Rules
from cbalign.distributed import devices
from cbalign.training.optimizer import alpha_ramp

# Parts of a pretrained model that no later task but retrieval has a use for.
PRETRAINING_HEADS = ("matching_head/.*", "codebook/.*", "temperature/.*", "text_projection/.*")


class Finetune:
    """A task that starts from pretrained towers; each subclass is what the loop needs of it.

    Attributes:
      records: kind of its data set, see `cbalign.data.task_records`.
      rules: {task of the weights to start from: Rules}.
      head: pattern of the parameters that only this task's training makes.
      classes: names of the classes, for the tasks that have them.
    """

    records = ""
    rules: dict[str, Rules] = {}
    classes: tuple = ()
    model_class = None

    def __init__(self, config, *, tokens: dict):
        if config.train.microbatches > 1:
            raise UserError(f"train.microbatches={config.train.microbatches} is for pretraining; {config.task} needs 1")
        if len(config.init.weights) > 1:
            raise UserError(f"init.weights names {len(config.init.weights)} places; {config.task} starts from one")
        self.config, self.tokens = config, tokens
        pretrained = build_model(config, vocab_size=tokens["vocab_size"])
        sizes = {field.name: getattr(pretrained, field.name) for field in dataclasses.fields(pretrained)}
        self.model = self.model_class(**{name: x for name, x in sizes.items() if name not in ("parent", "name")})
        self.alpha = alpha_ramp(alpha=config.contrast.alpha, ramp_steps=config.contrast.alpha_ramp_steps)

    def init_params(self, rng):
        """The student's parameters at random, float32."""
        size, length = self.config.data.image_size, self.config.data.max_tokens
        image, ids = np.zeros((1, size, size, 3), np.uint8), np.ones((1, length), np.int32)
        return jax.jit(self.model.init)(rng, image, ids)["params"]

    def teacher_params(self, params):
        """The teacher follows the whole model; without distillation there is none."""
        return params if self.config.contrast.alpha else {}

    def apply(self, params, *inputs, method: str, rng=None):
        """A method of the model; with dropout where there is a key."""
        if rng is None or not self.model.dropout:
            return self.model.apply({"params": params}, *inputs, method=method)
        return self.model.apply({"params": params}, *inputs, method=method, deterministic=False, rngs={"dropout": rng})

    def keys(self, rng) -> tuple:
        """Dropout keys of this device, the student's and the teacher's (None where it has no dropout)."""
        dropout = jax.random.fold_in(rng, devices.device_index())
        teacher = jax.random.fold_in(dropout, 1) if self.config.teacher.dropout else None
        return jax.random.fold_in(dropout, 0), teacher


class Classify(Finetune):
    """A head over classes: loss with the teacher's soft targets (reference: NLVR, VE)."""

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """The loss on one device's part of the batch.

        Args:
          params, teacher: parameter trees; the teacher's is empty without distillation.
          queue: none.
          batch: {"image", perhaps "image_second": uint8 [b, S, S, 3], "text": int32 [b, L], "label": int32 [b]}.
          rng: key of the step, equal on all devices.
          step: int32 scalar.

        Returns:
          (loss, {"metrics": {name: scalar}}).
        """
        del queue
        student_key, teacher_key = self.keys(rng)
        alpha = jnp.asarray(self.alpha(step), jnp.float32)
        images = tuple(batch[name] for name in ("image", "image_second") if name in batch)
        logits = self.apply(params, images, batch["text"], method="classify", rng=student_key)
        soft = None
        if teacher:
            teacher = jax.lax.stop_gradient(teacher)
            soft = self.apply(teacher, images, batch["text"], method="classify", rng=teacher_key)
        metrics = class_losses(logits, batch["label"], soft, alpha=alpha)
        metrics |= {"loss": metrics["class"], "alpha": alpha}
        return metrics["loss"], {"metrics": jax.lax.stop_gradient(metrics)}

    def chance_levels(self) -> dict:
        """{metric: its value for a model that knows nothing}."""
        return {"class_hard": float(np.log(len(self.classes))), "class_accuracy": 1 / len(self.classes)}

    def functions(self):
        """(params, images, ids) -> probabilities float32 [b, classes], compiled."""
        return jax.jit(lambda params, images, ids: jax.nn.softmax(
            self.apply(params, images, ids, method="classify"), axis=-1))
