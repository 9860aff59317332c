"""Counts the matrix products of a traced function. XLA's own count includes the body of a loop only once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Products:
    """Matrix products of one execution, per device.

    Attributes:
      flops: FLOPs of all products, 2 per multiply-add.
      float32_flops: those among them whose operands are float32.
      dense_bytes: bytes of operands and results of the products without batch dimensions: linear layers and their
        gradients. No fusion avoids them, which a fused attention does for its own.
    """

    flops: int = 0
    float32_flops: int = 0
    dense_bytes: int = 0

    def __add__(self, other: Products) -> Products:
        return Products(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other))))

    def times(self, count: int) -> Products:
        """The products of `count` executions."""
        return Products(*(count * value for value in dataclasses.astuple(self)))


def products(jaxpr) -> Products:
    """All matrix products of a jaxpr; per device inside a mapped function.

    A loop counts once per iteration, a conditional as its most expensive branch, and rematerialised products count
    again. A `while_loop`, whose trip count is unknown, counts once. Everything else (norms, softmax, transport
    iterations, the optimizer) is excluded, since a chip's peak refers to matrix products.
    """
    return sum((_of_equation(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns), Products())


def product_flops(jaxpr) -> int:
    """FLOPs of all matrix products of a jaxpr, see `products`."""
    return products(jaxpr).flops


def _of_equation(equation) -> Products:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "cond":
        return max((products(branch) for branch in parameters["branches"]), key=lambda found: found.flops)
    turns = parameters["length"] if name == "scan" else 1
    return sum((products(inner) for inner in inner_jaxprs(parameters)), Products()).times(turns)


def _of_product(equation) -> Products:
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    left, right = (x.aval for x in equation.invars)
    result = equation.outvars[0].aval
    flops = 2 * math.prod(result.shape) * math.prod(left.shape[i] for i in contracted)
    exact = np.dtype(np.float32) in (left.dtype, right.dtype)
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in (left, right, result))
    return Products(flops, flops if exact else 0, 0 if batch else size)


def inner_jaxprs(parameters):
    """Yields the jaxprs among an equation's parameters: function bodies, loop bodies and branches."""
    for value in parameters.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item
