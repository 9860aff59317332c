"""Masked language modelling: the choice of masked tokens, and the loss with the teacher's soft targets."""

import jax
import jax.numpy as jnp

from cbalign.losses.cross_entropy import soft_cross_entropy

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1


def mask_tokens(rng, ids, *, sample_index, mask_id, vocab_size, special_ids, probability=0.15, max_predictions):
    """BERT masking with a fixed number of prediction slots.

    Each token outside special_ids is selected independently with `probability`. If more than max_predictions of a
    row are selected, max_predictions of them are kept at random and the others left unchanged. Of those kept,
    80 % become mask_id, 10 % a token drawn uniformly from the whole vocabulary, and 10 % stay unchanged. Row r uses
    fold_in(rng, sample_index[r]), so that the draw depends on the sample and not on the device that holds it.

    Args:
      rng: key, the same on all devices.
      ids: [b, L] int token ids.
      sample_index: [b] int32 index of each row in the global batch.
      mask_id: id of [MASK].
      vocab_size: ids lie in [0, vocab_size).
      special_ids: tuple of ids never selected ([PAD], [CLS], [SEP]).
      probability: chance of a token being selected.
      max_predictions: slots P per row (static).

    Returns:
      {"ids": [b, L] masked ids, dtype of `ids`, "positions": [b, P] int32, "labels": [b, P] int32 original ids,
      "weights": [b, P] float32, 1 for used slots}. Unused slots have position, label and weight 0.
    """
    length = ids.shape[1]
    slots = min(max_predictions, length)

    def mask_row(row, index):
        select_key, action_key, token_key = jax.random.split(jax.random.fold_in(rng, index), 3)
        draw = jax.random.uniform(select_key, (length,))
        special = jnp.zeros(length, bool)
        for special_id in special_ids:
            special |= row == special_id
        # Draws below the threshold are uniform below it, so that they also order the selection at random.
        selected = (draw < probability) & ~special
        order = jnp.argsort(jnp.where(selected, draw, 2.0))[:slots]
        used = selected[order]
        kept = jnp.zeros(length, bool).at[order].set(used)

        action = jax.random.uniform(action_key, (length,))
        random_ids = jax.random.randint(token_key, (length,), 0, vocab_size).astype(row.dtype)
        replacement = jnp.where(action < MASK_SHARE + RANDOM_SHARE, random_ids, row)
        replacement = jnp.where(action < MASK_SHARE, jnp.asarray(mask_id, row.dtype), replacement)
        pad = (0, max_predictions - slots)
        return {
            "ids": jnp.where(kept, replacement, row),
            "positions": jnp.pad(jnp.where(used, order, 0).astype(jnp.int32), pad),
            "labels": jnp.pad(jnp.where(used, row[order], 0).astype(jnp.int32), pad),
            "weights": jnp.pad(used.astype(jnp.float32), pad),
        }

    return jax.vmap(mask_row)(ids, sample_index)


def mlm_losses(logits, labels, weights, teacher_logits=None, *, alpha, total=None):
    """Masked-token loss, mlm = (1 - alpha) * mlm_hard + alpha * mlm_soft.

        mlm_hard = sum_w CE(label, softmax(logits)) / total
        mlm_soft = sum_w H(softmax(teacher_logits), softmax(logits)) / total        softmax over the vocabulary

    Args:
      logits: [b, P, V] student logits at the masked positions.
      labels: [b, P] int original ids.
      weights: [b, P] 1 for used slots, 0 otherwise.
      teacher_logits: [b, P, V] of the same masked ids, no gradient; None for hard labels only (mlm = mlm_hard,
        mlm_soft = 0, for any alpha).
      alpha: weight of the teacher's targets, may be traced.
      total: count to divide by, None for the sum of `weights`. With the global count divided by the number of
        devices, the mean over devices is the global mean.

    Returns:
      {"mlm", "mlm_hard", "mlm_soft", "mlm_accuracy"}: float32 scalars, losses in nats; all 0 without masked tokens.
    """
    weights = weights.astype(jnp.float32)
    total = jnp.sum(weights) if total is None else jnp.asarray(total, jnp.float32)
    total = jnp.where(total > 0, total, 1.0)

    def mean(values):
        return jnp.sum(weights * values) / total

    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    hard = -mean(jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0])
    accuracy = mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))
    if teacher_logits is None:
        return {"mlm": hard, "mlm_hard": hard, "mlm_soft": jnp.zeros_like(hard), "mlm_accuracy": accuracy}
    teacher = jax.lax.stop_gradient(jax.nn.softmax(teacher_logits.astype(jnp.float32), axis=-1))
    soft = mean(soft_cross_entropy(logits, teacher))
    return {"mlm": (1.0 - alpha) * hard + alpha * soft, "mlm_hard": hard, "mlm_soft": soft, "mlm_accuracy": accuracy}
