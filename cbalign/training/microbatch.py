"""A device's rows taken a part at a time, so that the memory of activations is that of one part.

It is exact where a row's loss does not depend on other rows' gradients: in this method a student's query meets keys of
the teacher only, which carry none, and a hard negative comes from the row's own group, which no part cuts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def split(rows, parts: int):
    """Cuts the leading axis: leaves [b, ...] -> [parts, b / parts, ...]; each part holds consecutive rows.

    Raises:
      ValueError: the rows do not divide into that many parts.
    """

    def cut(x):
        if x.shape[0] % parts:
            raise ValueError(f"{x.shape[0]} rows do not divide into {parts} micro-batches")
        return x.reshape(parts, -1, *x.shape[1:])

    return jax.tree.map(cut, rows)


def by_parts(function: Callable, rows, *, microbatches: int):
    """`function(rows)`, which works row by row, applied to one part after the other.

    Args:
      function: tree of [b, ...] -> tree of [b, ...].
      rows: tree of [b, ...].
      microbatches: number of parts (static).

    Returns:
      What `function(rows)` returns.
    """
    if microbatches == 1:
        return function(rows)
    results = jax.lax.map(function, split(rows, microbatches))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)


def value_and_gradient(loss: Callable, params, rows, *, microbatches: int):
    """Value and gradient of the mean over parts of `loss(params, part)`, one part after the other.

    Args:
      loss: (params, tree of [b / microbatches, ...]) -> (scalar, tree of scalars), each a mean over its rows.
      params: tree to differentiate by; the gradients are summed in its dtypes.
      rows: tree of [b, ...].
      microbatches: number of parts (static).

    Returns:
      ((mean scalar, tree of mean scalars), gradient), as `jax.value_and_grad(loss, has_aux=True)(params, rows)`.
    """
    function = jax.value_and_grad(loss, has_aux=True)
    if microbatches == 1:
        return function(params, rows)
    parts = split(rows, microbatches)
    shapes = jax.eval_shape(function, params, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, function(params, part)), None

    sums, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / microbatches, sums)
