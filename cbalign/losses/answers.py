"""The loss of generated answers, each weighted by the share of people who gave it."""

import jax
import jax.numpy as jnp

from cbalign.losses.cross_entropy import soft_cross_entropy


def answer_losses(logits, ids, weights, teacher_logits=None, *, alpha):
    """ALBEF's answer loss (`models/model_vqa.py`), vqa = (1 - alpha) * vqa_hard + alpha * vqa_soft.

        vqa_hard = sum_a w_a sum_t CE(answer a's token t + 1, softmax(logits_t)) / b
        vqa_soft = sum_a w_a sum_t H(softmax(teacher_logits_t), softmax(logits_t)) / b

    The sum over the tokens of an answer is not divided by its length; padding is ignored.

    Args:
      logits: [b, A, T - 1, V], the decoder's predictions after tokens 0 to T - 2 of each of A answers.
      ids: [b, A, T] int token ids [CLS] x_1 ... [SEP], padded with 0.
      weights: [b, A], the share of people who gave the answer (VQA v2: count / 10); 0 for an empty slot.
      teacher_logits: [b, A, T - 1, V] of the same ids, no gradient; None for hard labels only.
      alpha: weight of the teacher's targets, may be traced.

    Returns:
      {"vqa", "vqa_hard", "vqa_soft", "token_accuracy"}: float32 scalars, losses in nats per question; the
      accuracy is the weighted share of tokens with the largest logit, 0 where there is no token.
    """
    labels = ids[..., 1:]
    token_weights = weights.astype(jnp.float32)[..., None] * (labels != 0)
    b = ids.shape[0]

    def weighted_sum(values):
        return jnp.sum(token_weights * values)

    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    hard = -weighted_sum(jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]) / b
    correct = weighted_sum((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))
    accuracy = correct / jnp.maximum(jnp.sum(token_weights), 1e-9)
    if teacher_logits is None:
        return {"vqa": hard, "vqa_hard": hard, "vqa_soft": jnp.zeros_like(hard), "token_accuracy": accuracy}
    teacher = jax.lax.stop_gradient(jax.nn.softmax(teacher_logits.astype(jnp.float32), axis=-1))
    soft = weighted_sum(soft_cross_entropy(logits, teacher)) / b
    return {"vqa": (1.0 - alpha) * hard + alpha * soft, "vqa_hard": hard, "vqa_soft": soft, "token_accuracy": accuracy}
