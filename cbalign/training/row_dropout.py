"""A model bound to its parameters, with a separate dropout key for each row.

A row's dropout mask depends only on its position in the global batch, so the same global batch gives the same loss for
any number of devices, processes and micro-batches.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp


class RowwiseModel:
    """A Flax module with parameters, applied with one dropout key per row.

    Attributes:
      model: the module; its `dropout` is read from `model.sizes`.
      params: its parameters.
      rows: int32 [b], positions of the encoded rows in the global batch.
      rng: the step's dropout key, or None to disable dropout.
    """

    def __init__(self, model: Any, params: Any, rows: jax.Array, rng: jax.Array | None):
        self.model, self.params, self.rows, self.rng, self.calls = model, params, rows, rng, 0

    def apply(self, method: str, *inputs):
        """Calls a method without dropout, on all rows at once."""
        return self.model.apply({"params": self.params}, *inputs, method=method)

    def apply_with_dropout(self, method: str, *inputs, **options):
        """Calls a method that takes `deterministic`, with one dropout key per row.

        Args:
          method: name of the method.
          *inputs: trees of arrays [m * b, ...]: m groups of the same b rows; each group has its own dropout masks.
          **options: arguments that are not arrays.
        """
        call = functools.partial(self.model.apply, {"params": self.params}, method=method, **options)
        if self.rng is None or not self.model.sizes.dropout:
            return call(*inputs, deterministic=True)
        self.calls += 1
        rng = jax.random.fold_in(self.rng, self.calls)
        groups = jax.tree.leaves(inputs)[0].shape[0] // self.rows.shape[0]

        def group_keys(group):
            group_rng = jax.random.fold_in(rng, group)
            return jax.vmap(lambda row: jax.random.fold_in(group_rng, row))(self.rows)

        keys = jax.vmap(group_keys)(jnp.arange(groups)).reshape(-1)

        def one_row(key, *inputs):
            batch_of_one = jax.tree.map(lambda x: x[None], inputs)
            result = call(*batch_of_one, deterministic=False, rngs={"dropout": key})
            return jax.tree.map(lambda x: x[0], result)

        return jax.vmap(one_row)(keys, *inputs)

    def image(self, image):
        """image: uint8 [b, S, S, 3] -> see `AlignmentModel.encode_image`; the image encoder has no dropout."""
        return self.apply("encode_image", image)

    def text(self, ids):
        """ids: int32 [b, L] -> see `AlignmentModel.encode_text`."""
        return self.apply_with_dropout("encode_text", ids)

    def image_context(self, image_tokens):
        """See `AlignmentModel.image_context`; projections have no dropout."""
        return self.apply("image_context", image_tokens)

    def fuse(self, tokens, ids, image, positions):
        """See `AlignmentModel.fuse`; m * b input rows are m groups of the same b rows."""
        if isinstance(positions, int):
            return self.apply_with_dropout("fuse", tokens, ids, image, positions=positions)
        return self.apply_with_dropout("fuse", tokens, ids, image, positions)
