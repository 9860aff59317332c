"""The policy of precision over the whole training step: float32 factors of a product are never rounded, on any chip."""

import jax
import pytest

from cbalign.plan.ahead import traced_step
from cbalign.plan.flops import inner_jaxprs
from tests.tiny import tiny_config


def products(jaxpr):
    """All products of a jaxpr, those of inner functions, loops and branches included."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in inner_jaxprs(equation.params):
            yield from products(inner)


def exact(equation) -> bool:
    precision = equation.params["precision"]
    return precision is not None and set(precision) == {jax.lax.Precision.HIGHEST}


def of_float32(equation) -> bool:
    # Where one factor is of the compute dtype, as in the gradient of the masked-token logits, the product is one of those.
    return all(x.aval.dtype == "float32" for x in equation.invars)


@pytest.mark.parametrize("solver", ["ipot", "sinkhorn"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_product_of_float32_is_exact(dtype, solver):
    """Left to its default, a TPU rounds the factors to bfloat16 and a GPU to TF32. One that is lost fails here."""
    config = tiny_config(model__dtype=dtype, codebook__solver=solver, codebook__queue_rows=16)
    found = list(products(traced_step(config, jax.local_devices()[:1]).jaxpr))
    full = [equation for equation in found if of_float32(equation)]
    # Projections, heads, similarities with keys and queues, costs of the transport and code probabilities at least.
    assert len(full) > 30 and all(map(exact, full)), [str(e)[:300] for e in full if not exact(e)][:3]
    # The encoders' products are of the compute dtype.
    assert (len(found) > len(full) + 40) == (dtype == "bfloat16")
