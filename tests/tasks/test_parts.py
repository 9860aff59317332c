"""Parts of the method that an ablation takes out or exchanges do what their field says."""

import jax
import numpy as np
import pytest

from cbalign.bench.step import random_batch
from cbalign.distributed import devices
from cbalign.losses.transport import cosine_cost, ipot
from cbalign.runs.train import bind_step, state_factory
from cbalign.tasks.pretrain import Pretrain
from tests.tiny import tiny_config

# Each compiles a whole step.
pytestmark = pytest.mark.slow

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 200}
CHEAP = dict(loss_weights__itm=0.0, loss_weights__mlm=0.0, teacher__momentum=1.0, contrast__alpha_ramp_steps=0)


def one_step(**changes):
    """(state before, state after, metrics, batch) of a step whose teacher is another model than the student."""
    config = tiny_config(**CHEAP, **changes)
    task = Pretrain(config, tokens=TOKENS)
    build, optimizer, schedule = state_factory(task, config, steps_per_epoch=10)
    before = build()
    before = before.replace(teacher=task.teacher_params(task.init_params(jax.random.key(99))))
    step = devices.map_step(bind_step(task, config, optimizer=optimizer, learning_rate=schedule), donate=False)
    batch = random_batch(task)
    after, metrics = step(devices.replicate(before), devices.feed(batch))
    return task, before, devices.fetch(after), devices.fetch(metrics), batch


def transport_cost(task, params, codes, batch, *, view):
    """<T, D> summed over the modalities, of the features these parameters give."""
    apply = lambda method, x: task.model.apply({"params": params}, x, method=method)["feature"]  # noqa: E731
    total = 0.0
    for features in (apply("encode_image", batch[view]), apply("encode_text", batch["text"])):
        cost = cosine_cost(features, codes)
        total += float(np.sum(np.asarray(ipot(cost, beta=0.5, iterations=5)) * np.asarray(cost)))
    return total


@pytest.mark.parametrize("teacher", [True, False])
def test_the_transport_assigns_the_features_it_is_told_to(teacher):
    task, before, _, metrics, batch = one_step(codebook__teacher=teacher)
    codes = task.model.apply({"params": before.params}, method="codes")
    of_teacher = transport_cost(task, before.teacher, codes, batch, view="image_teacher")
    of_student = transport_cost(task, before.params, codes, batch, view="image")
    assert abs(of_teacher - of_student) > 1e-3
    assert metrics["ot"] == pytest.approx(of_teacher if teacher else of_student, abs=2e-5)


def test_students_own_assignments_do_not_depend_on_micro_batches():
    whole, parts = (one_step(codebook__teacher=False, train__microbatches=n) for n in (1, 2))
    assert whole[3]["loss"] == pytest.approx(parts[3]["loss"], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), whole[2].params, parts[2].params)


def test_the_transport_term_weighs_what_it_is_told_to():
    metrics = one_step(codebook__ot_weight=0.0)[3]
    assert metrics["ot"] > 0.1 and metrics["code"] == pytest.approx(metrics["i2p"] + metrics["t2p"], rel=1e-6)
    metrics = one_step(codebook__ot_weight=0.5)[3]
    assert metrics["code"] == pytest.approx(0.5 * metrics["ot"] + metrics["i2p"] + metrics["t2p"], rel=1e-6)


@pytest.mark.parametrize("learned", [True, False])
def test_the_temperature_stays_where_it_starts_unless_it_is_learned(learned):
    # Tied to it, the temperature of the codes must not move it either.
    _, before, after, *_ = one_step(contrast__learn_temperature=learned, codebook__temperature=0.0)
    moved = after.params["temperature"]["value"] != before.params["temperature"]["value"]
    assert moved == learned
