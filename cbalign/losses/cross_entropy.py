"""Cross-entropy against soft targets."""

import jax
import jax.numpy as jnp


def soft_cross_entropy(logits, targets):
    """Cross-entropy of softmax predictions under soft targets, H(p, q) = -sum_k p_k log q_k, q = softmax(logits).

    The value is in nats. Classes may be excluded with a logit of -inf: where the target is zero there, the class
    contributes neither to the value nor to the gradient. Targets are used as they are (not normalised), and carry
    gradient; stop it at the caller when they are a teacher's.

    Args:
      logits: [..., k] any float dtype; computed in float32.
      targets: [..., k] non-negative, rows usually sum to one.

    Returns:
      [...] float32, one value per row. A positive target at a logit of -inf gives +inf.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    targets = targets.astype(jnp.float32)
    # 0 * -inf is NaN in the value and, without this inner where, in the gradient to the targets.
    log_probs = jnp.where(targets > 0, log_probs, 0.0)
    return -jnp.sum(targets * log_probs, axis=-1)
