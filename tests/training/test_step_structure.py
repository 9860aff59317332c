"""What makes the step fast, counted in the traced program: projections, positions, collectives. Seconds are not."""

import collections

import jax
import numpy as np
import pytest

from cbalign.distributed import devices
from cbalign.plan.flops import inner_jaxprs
from cbalign.runs.train import step_without_data
from tests.tiny import tiny_config

PAIRS, TOKENS, PATCHES, MASKED = 16, 12, 17, 2
IMAGE, TEXT, MLP, VOCABULARY, DEPTH = 48, 32, 128, 200, 2


def equations(jaxpr):
    """All equations of a jaxpr, those of inner functions, loops and branches included."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for inner in inner_jaxprs(equation.params):
            yield from equations(inner)


def traced(device_count=1, **changes):
    config = tiny_config(model__image_width=IMAGE, model__fusion_depth=DEPTH, itm__group_size=4, **changes)
    task, make_state, step = step_without_data(config, device_count=device_count)
    rows = {
        name: jax.ShapeDtypeStruct((x.shape[0] // device_count, *x.shape[1:]), x.dtype)
        for name, x in task.batch_shapes().items()
    }
    trace = jax.make_jaxpr(step, axis_env=[(devices.AXIS, device_count)])
    return list(equations(trace(jax.eval_shape(make_state), rows)))


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["without dropout", "with dropout"])
def step(request):
    return traced(model__dropout=request.param)


def rows_through(step, weights):
    """Rows that products with a matrix of weights [in, out] take in the forward passes, all together."""
    total = 0
    for equation in step:
        if equation.primitive.name != "dot_general" or equation.invars[1].aval.shape != weights:
            continue
        ((left, right), _) = equation.params["dimension_numbers"]
        if tuple(right) == (0,) and tuple(left) == (equation.invars[0].aval.ndim - 1,):
            total += int(np.prod(equation.invars[0].aval.shape[:-1]))
    return total


def test_an_image_is_projected_once_per_fusion_layer(step):
    """To keys and values, by the student and by the teacher; three groups of pairs and the masked text share them."""
    assert rows_through(step, (IMAGE, TEXT)) == 2 * DEPTH * 2 * PAIRS * PATCHES + 2 * PAIRS  # and feature projections


def test_the_last_layer_and_the_head_run_where_they_are_needed(step):
    texts = 4 * PAIRS * TOKENS  # whole and masked, student and teacher
    first = 5 * PAIRS * TOKENS  # three groups of pairs, masked by student and teacher
    last = 3 * PAIRS + 2 * PAIRS * MASKED
    assert rows_through(step, (TEXT, MLP)) == texts + first + last
    logits = {e.outvars[0].aval.shape for e in step if e.outvars and e.outvars[0].aval.shape[-1:] == (VOCABULARY,)}
    assert {shape for shape in logits if shape[0] == PAIRS} == {(PAIRS, MASKED, VOCABULARY)}


def test_neither_wide_numbers_nor_callbacks(step):
    assert not [e for e in step if "callback" in e.primitive.name or "infeed" in e.primitive.name]
    assert not [e for e in step for x in e.outvars if str(getattr(x.aval, "dtype", "")) in ("float64", "int64")]


COLLECTIVES = ("psum", "pmax", "all_gather", "all_to_all", "ppermute", "reduce_scatter", "pmin")


def collectives(step):
    names = [e.primitive.name for e in step]
    return collections.Counter(name for name in names if name.startswith(COLLECTIVES))


def test_one_device_talks_to_nobody(step):
    assert not collectives(step)


def test_collectives_of_several_devices():
    """Keys and ids are gathered; the transport sums a row of the plan, with a flag, per modality and proximal step."""
    step, codes = traced(4), 32
    assert collectives(step)["all_gather"] == 3
    sums = collections.Counter(
        x.aval.shape for equation in step if equation.primitive.name.startswith("psum") for x in equation.invars
    )
    assert sums[(codes + 1,)] == 2
    # Rarely, sums of logarithms; and the columns of a plan, for its health.
    assert sums[(codes,)] - sums_of_gradients(codes) == 2 + 2
    assert not {shape for shape in sums if shape in ((PAIRS, codes), (PAIRS // 4, codes))}


def sums_of_gradients(length):
    """Parameters of that shape: [length]."""
    config = tiny_config(model__image_width=IMAGE, model__fusion_depth=DEPTH)
    state = jax.eval_shape(step_without_data(config, device_count=1)[1])
    return sum(x.shape == (length,) for x in jax.tree.leaves(state.params))
