"""Contrastive losses with the teacher's soft targets, across and within modalities (L_ica)."""

import math

import jax
import jax.numpy as jnp

from cbalign.losses.cross_entropy import soft_cross_entropy

TERMS = ("i2t", "t2i", "i2i", "t2t")


def chance_level(n_keys):
    """Loss in nats of a uniform guess over n_keys keys, ln n_keys."""
    return math.log(n_keys)


def key_targets(query_ids, key_ids, own_index, *, joint_positives):
    """Hard targets over the keys.

    Args:
      query_ids: [b] int, the id of each query's image (pairs with equal ids are positives of each other).
      key_ids: [m] int, ids of the keys; negative for empty queue slots, which match no query.
      own_index: [b] int, index of the pair's own key among the m keys.
      joint_positives: False for one-hot targets at own_index, True for uniform targets over all keys with the
        query's id (own_index always included).

    Returns:
      [b, m] float32, rows sum to one.
    """
    own = jax.nn.one_hot(own_index, key_ids.shape[0], dtype=jnp.float32)
    if not joint_positives:
        return own
    same = (query_ids[:, None] == key_ids[None, :]) & (key_ids >= 0)[None, :]
    positives = jnp.maximum(own, same.astype(jnp.float32))
    return positives / jnp.sum(positives, axis=1, keepdims=True)


def contrastive_losses(
    *,
    student_image,
    student_text,
    teacher_image,
    teacher_text,
    keys_image,
    keys_text,
    hard_targets,
    key_valid=None,
    temperature,
    alpha,
    terms=TERMS,
    soft_intra=True,
):
    """H(y_{a2c}, p_{a2c}) for query modality a and key modality c, one per term.

        p_{a2c} = softmax(z_a . keys_c / tau)
        y_{a2c} = alpha * softmax(teacher z_a . keys_c / tau) + (1 - alpha) * hard_targets

    Each is the mean over this device's b rows; the keys are the teacher features of the global batch followed by
    the queue. L_ica is the mean of the four. Gradient reaches the student's query features and, through the
    student's logits only, tau; it never reaches keys, teacher or targets (so i2t gives none to the text side).

    Args:
      student_image, student_text: [b, d] L2-normalised student features of this device.
      teacher_image, teacher_text: [b, d] L2-normalised teacher features of the same rows.
      keys_image, keys_text: [m, d] L2-normalised keys, m = n + Q.
      hard_targets: [b, m] rows sum to one; zero at invalid keys.
      key_valid: [m] bool, or None if all keys are valid. Invalid keys are excluded from every softmax.
      temperature: tau.
      alpha: weight of the teacher's soft targets, may be traced.
      terms: the terms to compute, among "i2t", "t2i", "i2i", "t2t".
      soft_intra: False uses hard targets only for i2i and t2t.

    Returns:
      {term: float32 scalar in nats}, in the order of `terms`.

    Raises:
      ValueError: a term is unknown.
    """
    unknown = sorted(set(terms) - set(TERMS))
    if unknown:
        raise ValueError(f"unknown contrastive terms {unknown}; choose from {', '.join(TERMS)}")
    constant = jax.lax.stop_gradient
    students = {"i": student_image, "t": student_text}
    teachers = {"i": constant(teacher_image), "t": constant(teacher_text)}
    keys = {"i": constant(keys_image), "t": constant(keys_text)}
    hard_targets = constant(hard_targets).astype(jnp.float32)

    def logits(queries, key_features, tau):
        scores = jnp.matmul(
            queries.astype(jnp.float32), key_features.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST
        )
        scores = scores / tau
        return scores if key_valid is None else jnp.where(key_valid[None, :], scores, -jnp.inf)

    losses = {}
    for term in terms:
        query, key = term[0], term[2]
        targets = hard_targets
        if soft_intra or query != key:
            soft = jax.nn.softmax(logits(teachers[query], keys[key], constant(temperature)), axis=-1)
            targets = constant(alpha * soft + (1.0 - alpha) * hard_targets)
        losses[term] = jnp.mean(soft_cross_entropy(logits(students[query], keys[key], temperature), targets))
    return losses
