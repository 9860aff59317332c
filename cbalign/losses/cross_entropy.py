"""Cross-entropy against soft targets."""

import jax
import jax.numpy as jnp


def soft_cross_entropy(logits, targets):
    """Cross-entropy of softmax predictions under soft targets, H(p, q) = -sum_k p_k log q_k, q = softmax(logits).

    Classes may be excluded with a logit of -inf: where their target is zero, they contribute neither to the value nor
    to the gradient. Targets are not normalised and carry gradient; callers stop it for a teacher's targets.

    Args:
      logits: [..., k] any float dtype; computed in float32.
      targets: [..., k] non-negative, rows usually sum to one.

    Returns:
      [...] float32 in nats, one value per row. A positive target at a logit of -inf gives +inf.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    targets = targets.astype(jnp.float32)
    # 0 * -inf would be NaN in the value and in the gradient with respect to the targets.
    log_probs = jnp.where(targets > 0, log_probs, 0.0)
    return -jnp.sum(targets * log_probs, axis=-1)
