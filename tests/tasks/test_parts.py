"""Parts of the method that an ablation takes out or exchanges do what their field says."""

import jax
import numpy as np
import optax
import pytest

from cbalign.bench.step import random_batch
from cbalign.distributed import devices
from cbalign.losses.transport import cosine_cost, ipot
from cbalign.runs.train import bind_step, state_factory
from cbalign.tasks.pretrain import Pretrain
from tests.peers import losses as peer
from tests.peers.mixture import mixture
from tests.tiny import tiny_config

# Each compiles a whole step.
pytestmark = pytest.mark.slow

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 200}
CHEAP = dict(loss_weights__itm=0.0, loss_weights__mlm=0.0, teacher__momentum=1.0, contrast__alpha_ramp_steps=0)


def one_step(*, sgd=False, **changes):
    """(state before, state after, metrics, batch) of a step whose teacher is another model than the student."""
    config = tiny_config(**CHEAP, **changes)
    task = Pretrain(config, tokens=TOKENS)
    build, optimizer, schedule = state_factory(task, config, steps_per_epoch=10)
    optimizer = optax.sgd(1.0) if sgd else optimizer
    before = build()
    before = before.replace(opt_state=optimizer.init(before.params))
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


def test_mixtures_of_codes_are_compared_and_what_was_mixed_is_assigned():
    """Features, L_ica and its gradient in the codes, L_ot, L_i2p and L_t2p against the formulas in numpy."""
    options = dict(codebook__embed=True, codebook__embed_temperature=0.2)
    _, before, after, metrics, batch = one_step(sgd=True, loss_weights__code=1e-30, **options)
    plain = Pretrain(tiny_config(), tokens=TOKENS).model
    raw, tau, alpha = np.asarray(before.params["codebook"]["codes"], np.float64), 0.07, 0.4

    def projected(params, view):
        apply = lambda method, x: np.asarray(plain.apply({"params": params}, x, method=method)["feature"])  # noqa: E731
        return {"i": apply("encode_image", batch[view]), "t": apply("encode_text", batch["text"])}

    z = {"student": projected(before.params, "image"), "teacher": projected(before.teacher, "image_teacher")}
    teacher = {name: mixture(x, raw, 0.2) for name, x in z["teacher"].items()}
    np.testing.assert_allclose(after.queue.image[:16], teacher["i"], atol=2e-6)
    np.testing.assert_allclose(after.queue.text[:16], teacher["t"], atol=2e-6)
    keys = {
        "i": np.concatenate([teacher["i"], before.queue.image]),
        "t": np.concatenate([teacher["t"], before.queue.text]),
    }

    def terms(raw):
        """The teacher's features and the keys stay: no gradient comes through them."""
        student = {name: mixture(x, raw, 0.2) for name, x in z["student"].items()}
        hard = np.eye(16, len(keys["i"]))
        return {
            f"{a}2{c}": peer.contrast(student[a], teacher[a], keys[c], hard, tau, alpha) for a in "it" for c in "it"
        }

    for name, value in terms(raw).items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name
    direction = np.random.default_rng(0).normal(size=raw.shape)
    ends = [np.mean(list(terms(raw + step * direction).values())) for step in (1e-5, -1e-5)]
    gradient = raw - np.asarray(after.params["codebook"]["codes"], np.float64)
    assert abs(np.sum(gradient * direction)) > 1e-3
    assert np.sum(gradient * direction) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-3)

    plans = {name: np.asarray(ipot(cosine_cost(x, raw), beta=0.5, iterations=5)) for name, x in z["teacher"].items()}
    rows = {name: plan / plan.sum(axis=1, keepdims=True) for name, plan in plans.items()}
    sides = (z[who][name] for who in ("student", "teacher") for name in "it")
    expected = peer.code_losses(*sides, raw, plans["i"], plans["t"], rows["i"], rows["t"], 0.1)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=5e-5), name
