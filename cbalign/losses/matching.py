"""Image-text matching (ITM): hard negatives and the two-class loss."""

import math

import jax
import jax.numpy as jnp

from cbalign.losses.cross_entropy import soft_cross_entropy

# Loss of a constant predictor, given that one pair in three matches: the entropy of (1/3, 2/3), 0.6365 nats.
MATCHING_PRIOR = math.log(3.0) - 2.0 / 3.0 * math.log(2.0)


def _diagonal_groups(matrix, group_size):
    """[b, b] -> [b / group_size, group_size, group_size]: the blocks on the diagonal, float32."""
    groups = matrix.shape[0] // group_size
    blocks = matrix.astype(jnp.float32).reshape(groups, group_size, groups, group_size)
    index = jnp.arange(groups)
    return blocks[index, :, index, :]


def sample_negatives(rng, similarity_i2t, similarity_t2i, ids, *, group_index_offset=0, group_size):
    """One hard negative image per text and one hard negative text per image, drawn by contrastive similarity.

    Text i draws image j with probability softmax_j(similarity_t2i[i, j]) over the other rows of its group of
    consecutive rows, excluding equal ids; images draw texts from similarity_i2t likewise. A row whose whole group
    has its id draws uniformly from the other rows. Group g uses fold_in(rng, group_index_offset + g), so that the
    draw depends on the group's place in the global batch and not on the number of devices. No gradient.

    Args:
      rng: key, the same on all devices.
      similarity_i2t: [b, b] logits (already divided by tau) of this device; [i, j] = image i, text j.
      similarity_t2i: [b, b] logits; [j, i] = text j, image i.
      ids: [b] int; equal ids are not negatives of each other.
      group_index_offset: index in the global batch of this device's first group (may be traced).
      group_size: rows per group (static).

    Returns:
      {"image": [b] int32, row on this device of a negative image for each text,
      "text": [b] int32, row of a negative text for each image,
      "no_candidate": float32 share of rows drawn uniformly for lack of another id}.

    Raises:
      ValueError: group_size below 2, or b not a multiple of it.
    """
    b = ids.shape[0]
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2 to hold a negative, got {group_size}")
    if b % group_size:
        raise ValueError(f"the {b} rows of a device do not divide into groups of {group_size}")
    groups = b // group_size
    grouped_ids = ids.reshape(groups, group_size)
    differs = grouped_ids[:, :, None] != grouped_ids[:, None, :]
    has_candidate = jnp.any(differs, axis=-1, keepdims=True)
    other = jnp.broadcast_to(~jnp.eye(group_size, dtype=bool), differs.shape)
    first_row = jnp.arange(groups, dtype=jnp.int32)[:, None] * group_size

    def draw(keys, similarity):
        logits = _diagonal_groups(jax.lax.stop_gradient(similarity), group_size)
        hard = jnp.where(differs, logits, -jnp.inf)
        uniform = jnp.where(other, 0.0, -jnp.inf)
        choice = jax.vmap(jax.random.categorical)(keys, jnp.where(has_candidate, hard, uniform))
        return (choice.astype(jnp.int32) + first_row).reshape(b)

    group_keys = jax.vmap(lambda g: jax.random.split(jax.random.fold_in(rng, g)))(
        group_index_offset + jnp.arange(groups)
    )
    return {
        "image": draw(group_keys[:, 0], similarity_t2i),
        "text": draw(group_keys[:, 1], similarity_i2t),
        "no_candidate": jnp.mean(1.0 - has_candidate.astype(jnp.float32)),
    }


def matching_loss(logits, labels):
    """Two-class cross-entropy, mean over all rows, and its accuracy.

    Args:
      logits: [3b, 2]; column 1 is "match".
      labels: [3b] int; 1 = match, 0 = no match.

    Returns:
      {"itm": float32 loss in nats, "itm_accuracy": float32 share of rows whose larger logit is the label's}.
    """
    targets = jax.nn.one_hot(labels, 2, dtype=jnp.float32)
    correct = jnp.argmax(logits, axis=-1) == labels
    return {"itm": jnp.mean(soft_cross_entropy(logits, targets)), "itm_accuracy": jnp.mean(correct.astype(jnp.float32))}
