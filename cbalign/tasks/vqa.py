"""Visual question answering: a decoder generates answers, evaluation ranks a fixed list of them."""

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.losses.answers import answer_losses
from cbalign.models.vqa import AnswerModel
from cbalign.tasks.finetune import PRETRAINING_HEADS, Finetune
from cbalign.tasks.transfer import Rules


class Vqa(Finetune):
    """What the loop needs of VQA (ALBEF `models/model_vqa.py`).

    The decoder starts from the fusion layers, its embeddings from the text encoder's, its head from that of masked
    tokens.
    """

    records = "questions"
    model_class = AnswerModel
    rules = {
        "pretrain": Rules(
            renames=(
                (r"answer_embeddings/(.*)", r"text_encoder/embeddings/\1"),
                (r"answer_layers/(.*)", r"fusion_encoder/\1"),
                (r"answer_head/(.*)", r"masked_token_head/\1"),
            ),
            unused=(*PRETRAINING_HEADS, "image_projection/.*"),
        ),
        "vqa": Rules(),
    }

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """The loss on one device's part of the batch.

        Args:
          params, teacher: parameter trees; the teacher's is empty without distillation.
          queue: none.
          batch: {"image": uint8 [b, S, S, 3], "text": int32 [b, L], "answers": int32 [b, A, T], "answer_weights":
            float32 [b, A]}.
          rng: key of the step, equal on all devices.
          step: int32 scalar.

        Returns:
          (loss, {"metrics": {name: scalar}}).
        """
        del queue
        student_key, teacher_key = self.keys(rng)
        alpha = jnp.asarray(self.alpha(step), jnp.float32)
        logits = self._logits(params, batch, student_key)
        soft = self._logits(jax.lax.stop_gradient(teacher), batch, teacher_key) if teacher else None
        metrics = answer_losses(logits, batch["answers"], batch["answer_weights"], soft, alpha=alpha)
        metrics |= {"loss": metrics["vqa"], "alpha": alpha}
        return metrics["loss"], {"metrics": jax.lax.stop_gradient(metrics)}

    def _logits(self, params, batch, key):
        """float32 [b, A, T - 1, V] for all answers of all questions."""
        b, slots, length = batch["answers"].shape
        keys = (None, None) if key is None else jax.random.split(key)
        states = self.apply(params, batch["image"], batch["text"], method="question_states", rng=keys[0])
        states, questions = (jnp.repeat(x, slots, axis=0) for x in (states, batch["text"]))
        before = batch["answers"].reshape(b * slots, length)[:, :-1]
        logits = self.apply(params, states, questions, before, method="answer_logits", rng=keys[1])
        return logits.reshape(b, slots, length - 1, -1)

    def chance_levels(self) -> dict:
        """{metric: its value for a model that knows nothing}; of the loss, that of one token of one answer."""
        return {"vqa_hard_per_token": float(np.log(self.tokens["vocab_size"]))}

    def functions(self):
        """{"states", "next_token", "likelihood"} as `evaluation.vqa.AnswerFunctions` has them, compiled, each taking
        the parameters first."""

        def log_probs(params, states, question_ids, answer_ids):
            logits = self.apply(params, states, question_ids, answer_ids, method="answer_logits")
            return jax.nn.log_softmax(logits, axis=-1)

        def likelihood(params, states, question_ids, answer_ids):
            labels = answer_ids[:, 1:]
            found = log_probs(params, states, question_ids, answer_ids[:, :-1])
            picked = jnp.take_along_axis(found, labels[..., None], axis=-1)[..., 0]
            return jnp.sum(picked * (labels != self.tokens["pad"]), axis=-1)

        return {
            "states": jax.jit(lambda params, images, ids: self.apply(params, images, ids, method="question_states")),
            "next_token": jax.jit(lambda params, *inputs: log_probs(params, *inputs)[:, -1]),
            "likelihood": jax.jit(likelihood),
        }
