"""Traces the step of a tiny pretraining over two CPU devices and prints its structure as JSON; with --compile also that of
the compiled program. A script of its own, since the number of devices is fixed once JAX has started.

  XLA_FLAGS=--xla_force_host_platform_device_count=2 python tests/plan/step_structure.py [--compile]
"""

import json
import math
import re
import sys

import jax

from cbalign.plan import hlo
from cbalign.plan.ahead import traced_step
from cbalign.plan.collectives import collectives
from cbalign.plan.flops import inner_jaxprs
from tests.tiny import tiny_config

# Sizes that differ from one another, so that a shape tells what it is of.
SIZES = dict(
    model__fusion_depth=2,
    model__embed_dim=24,
    codebook__num_codes=40,
    codebook__iterations=7,
    queue__size=96,
    itm__group_size=8,
)
TRANSFERS = ("psum", "psum_invariant", "all_gather", "psum_scatter", "reduce_scatter", "all_to_all", "ppermute", "pmax")


def equations(jaxpr, scope="", turns=1):
    """Yields (equation, its scopes, how often it runs) of a jaxpr and all inside it."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        here = f"{scope}/{equation.source_info.name_stack}"
        yield equation, here, turns
        inside = turns * equation.params["length"] if equation.primitive.name == "scan" else turns
        for inner in inner_jaxprs(equation.params):
            yield from equations(inner, here, inside)


def structure(jaxpr):
    """Products as [scopes, left, right, result], loops, collectives, element types and primitives."""
    found = {"products": [], "loops": [], "transfers": [], "types": set(), "primitives": set()}
    for equation, scope, turns in equations(jaxpr):
        name = equation.primitive.name
        found["primitives"].add(name)
        found["types"] |= {str(x.aval.dtype) for x in equation.outvars if hasattr(x.aval, "dtype")}
        if name == "dot_general":
            shapes = [list(x.aval.shape) for x in (*equation.invars, equation.outvars[0])]
            found["products"] += [[scope, *shapes]] * turns
        if name == "scan":
            found["loops"].append([scope, equation.params["length"]])
        if name in TRANSFERS:
            # Of an all-gather what it makes, of a sum what is summed.
            arrays = equation.outvars if name == "all_gather" else equation.invars
            size = sum(math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in arrays)
            found["transfers"].append([name, size, turns])
    return {key: sorted(value) if isinstance(value, set) else value for key, value in found.items()}


def main():
    config = tiny_config(**SIZES)
    traced = traced_step(config, jax.devices())
    lowered = traced.lower()
    header = next(line for line in lowered.as_text().splitlines() if "func.func public @main" in line)
    found = structure(traced.jaxpr)
    found["donated"] = len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", header))
    state, batch = traced.in_avals[0]
    leaves = jax.tree.leaves(state)
    found |= {"state": len(leaves), "batch": len(jax.tree.leaves(batch))}
    if "--compile" in sys.argv:
        text = lowered.compile().as_text()
        module = hlo.parse(text)
        found["compiled"] = {
            "aliases": len(re.findall(r"-alias\)", module.header)),
            "collectives": collectives(module),
            "f64": bool(re.search(r"\bf64\[", text)),
            "callbacks": len(re.findall(r'custom_call_target="[^"]*callback', text)),
            "unknown_loops": module.unknown_loops,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
