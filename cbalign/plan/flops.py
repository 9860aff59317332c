"""Counts the FLOPs of a traced function. XLA's own count includes the body of a loop only once."""

import math


def product_flops(jaxpr) -> int:
    """FLOPs of all matrix products of a jaxpr, 2 per multiply-add; per device inside a mapped function.

    A loop counts once per iteration, a conditional as its most expensive branch, and rematerialised products count
    again. A `while_loop`, whose trip count is unknown, counts once. Everything else (norms, softmax, transport
    iterations, the optimizer) is excluded, since a chip's peak refers to matrix products.
    """
    return sum(_equation_flops(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _equation_flops(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    if name == "cond":
        return max(product_flops(branch) for branch in parameters["branches"])
    turns = parameters["length"] if name == "scan" else 1
    return turns * sum(product_flops(inner) for inner in inner_jaxprs(parameters))


def inner_jaxprs(parameters):
    """Yields the jaxprs among an equation's parameters: function bodies, loop bodies and branches."""
    for value in parameters.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item
