"""Classification with the teacher's soft targets (NLVR2, SNLI-VE), and the sampling of text assignment."""

import jax
import jax.numpy as jnp

from cbalign.losses.cross_entropy import soft_cross_entropy


def class_losses(logits, labels, teacher_logits=None, *, alpha):
    """Class = (1 - alpha) * class_hard + alpha * class_soft, means over the batch.

        class_hard = CE(label, softmax(logits))
        class_soft = H(softmax(teacher_logits), softmax(logits))

    Args:
      logits: [b, k].
      labels: [b] int in [0, k).
      teacher_logits: [b, k], no gradient; None for hard labels only.
      alpha: weight of the teacher's targets, may be traced.

    Returns:
      {"class", "class_hard", "class_soft", "class_accuracy"}: float32 scalars, losses in nats.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    hard = jnp.mean(soft_cross_entropy(logits, targets))
    accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))
    if teacher_logits is None:
        return {"class": hard, "class_hard": hard, "class_soft": jnp.zeros_like(hard), "class_accuracy": accuracy}
    teacher = jax.lax.stop_gradient(jax.nn.softmax(teacher_logits.astype(jnp.float32), axis=-1))
    soft = jnp.mean(soft_cross_entropy(logits, teacher))
    return {
        "class": (1.0 - alpha) * hard + alpha * soft,
        "class_hard": hard,
        "class_soft": soft,
        "class_accuracy": accuracy,
    }


def assign_images(rng, similarity, ids, *, sample_index):
    """Draws two images per text, and which of them it is about (ALBEF `models/model_pretrain_nlvr.py`).

    With probability 1/3 each: the text's own image comes first (label 0), second (1), or not at all (2). The others
    are drawn without replacement with probability softmax(similarity) over the batch's images of another id; a row
    with fewer than two of those draws uniformly from all other rows. Row r uses fold_in(rng, sample_index[r]). No
    gradient.

    Args:
      rng: key, the same on all devices.
      similarity: [b, b] logits between images, already divided by the temperature (ALBEF: 0.07).
      ids: [b] int; images with the same id are not distractors of each other.
      sample_index: [b] int32 index of each row in the global batch.

    Returns:
      {"first", "second": [b] int32 rows of the batch, "label": [b] int32}.
    """
    b = ids.shape[0]
    other = ~jnp.eye(b, dtype=bool)
    distractor = (ids[:, None] != ids[None, :]) & other
    enough = jnp.sum(distractor, axis=1, keepdims=True) >= 2
    scores = jax.lax.stop_gradient(similarity).astype(jnp.float32)
    scores = jnp.where(enough, jnp.where(distractor, scores, -jnp.inf), jnp.where(other, 0.0, -jnp.inf))

    def draw(index, row):
        label_key, image_key = jax.random.split(jax.random.fold_in(rng, index))
        # The top two of logits plus Gumbel noise are two draws without replacement.
        _, drawn = jax.lax.top_k(row + jax.random.gumbel(image_key, row.shape), 2)
        return jax.random.randint(label_key, (), 0, 3), drawn.astype(jnp.int32)

    label, drawn = jax.vmap(draw)(sample_index, scores)
    own = jnp.arange(b, dtype=jnp.int32)
    return {
        "first": jnp.where(label == 0, own, drawn[:, 0]),
        "second": jnp.where(label == 1, own, jnp.where(label == 2, drawn[:, 1], drawn[:, 0])),
        "label": label,
    }
