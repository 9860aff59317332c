"""The momentum queues: teacher features of recent global batches, with the ids of their images."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Queue:
    """A FIFO ring buffer; once it is full, slot `pointer` is the oldest.

    Attributes:
      image: float32 [Q, d] teacher features of images, unit length.
      text: float32 [Q, d] teacher features of texts, unit length.
      ids: int32 [Q] image id of each slot; -1 for a slot never written.
      pointer: int32 scalar, the next slot to write.
    """

    image: jax.Array
    text: jax.Array
    ids: jax.Array
    pointer: jax.Array

    @property
    def size(self) -> int:
        """Q."""
        return self.ids.shape[0]


def init_queue(rng, *, size: int, width: int) -> Queue:
    """Random unit vectors, as in ALBEF; the id -1 marks them as not yet written."""

    def unit_vectors(rng):
        x = jax.random.normal(rng, (size, width), jnp.float32)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    image_rng, text_rng = jax.random.split(rng)
    return Queue(
        image=unit_vectors(image_rng),
        text=unit_vectors(text_rng),
        ids=jnp.full((size,), -1, jnp.int32),
        pointer=jnp.zeros((), jnp.int32),
    )


def enqueue(queue: Queue, *, image, text, ids) -> Queue:
    """Writes the teacher features of a global batch at the pointer and advances it modulo Q.

    Args:
      queue: before the step.
      image, text: float32 [N, d]; N must divide Q, which is checked before a run starts.
      ids: int32 [N].

    Returns:
      The queue after the step. No gradient flows into it.
    """

    def write(buffer, rows):
        rows = jax.lax.stop_gradient(rows).astype(buffer.dtype)
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, queue.pointer, axis=0)

    return Queue(
        image=write(queue.image, image),
        text=write(queue.text, text),
        ids=write(queue.ids, ids),
        pointer=(queue.pointer + ids.shape[0]) % queue.size,
    )


def newest(queue: Queue, count: int) -> dict:
    """The `count` most recently written slots: {"image": [count, d], "text": [count, d], "ids": [count]}."""
    slots = (queue.pointer - 1 - jnp.arange(count)) % queue.size
    return {"image": queue.image[slots], "text": queue.text[slots], "ids": queue.ids[slots]}


def fill(queue: Queue):
    """Fraction of slots that have been written, float32 scalar."""
    return jnp.mean((queue.ids >= 0).astype(jnp.float32))
