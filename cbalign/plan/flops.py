"""FLOPs of a traced function, counted by hand: XLA's own count takes the body of a loop once, however often it runs."""

import math


def product_flops(jaxpr) -> int:
    """FLOPs of all matrix products of a jaxpr, 2 for each multiply-add; of one device inside a mapped function.

    Loops count as often as they run, branches as their dearest one, and what is rematerialised counts again. A
    `while_loop`, whose number of turns nobody knows, counts once. All else (norms, softmax, the transport's sweeps, the
    optimizer) is left out: a chip's peak is one of products.
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
    """Yields the jaxprs among an equation's parameters: bodies of functions, loops and branches."""
    for value in parameters.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item
