"""Properties of the training step that no single loss shows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cbalign.bench.step import random_batch
from cbalign.distributed import devices
from cbalign.models.alignment import TEACHER_MODULES
from cbalign.runs.train import bind_step, state_factory
from cbalign.tasks.pretrain import Pretrain
from tests.tiny import tiny_config

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 200}


def make(config, optimizer=None, *, donate=False):
    """A mapped step, a state and a batch of a config."""
    task = Pretrain(config, tokens=TOKENS)
    build, adam, schedule = state_factory(task, config, steps_per_epoch=10)
    optimizer = optimizer or adam
    state = build()
    state = state.replace(opt_state=optimizer.init(state.params))
    step = devices.map_step(bind_step(task, config, optimizer=optimizer, learning_rate=schedule), donate=donate)
    return step, devices.replicate(state), devices.feed(random_batch(task))


@pytest.fixture(scope="module")
def made():
    """What `make` gives of one program for several tests, which takes over the memory of its state: copy that."""
    changes = dict(codebook__freeze_steps=1, teacher__momentum=0.75, loss_weights__itm=0.0, loss_weights__mlm=0.0)
    return make(tiny_config(**changes), donate=True)


@pytest.fixture(scope="module")
def two_steps(made):
    step, state, batch = made
    state, states = copied(state), [on_host(state)]
    for _ in range(2):
        state, _ = step(state, batch)
        states.append(on_host(state))
    return states, devices.fetch(batch)


def on_host(state):
    return jax.tree.map(np.array, devices.fetch(state))


def copied(state):
    return devices.replicate(jax.tree.map(jnp.copy, state))


def addresses(state):
    return [x.addressable_data(0).unsafe_buffer_pointer() for x in jax.tree.leaves(state)]


@pytest.mark.parametrize("source", [pytest.param("device", marks=pytest.mark.slow), "host"])
def test_the_first_step_already_works_in_the_states_own_memory(made, source):
    """Else two states are held, as where the memory belongs to a numpy array."""
    step, state, batch = made
    if source == "host":
        state = devices.replicate(jax.tree.map(aligned, devices.fetch(state)))
    else:
        state = copied(state)
    devices.fetch(state.params)  # as for the log
    before, (after, _) = addresses(state), step(state, batch)
    jax.block_until_ready(after)
    assert before == addresses(after)


def aligned(x):
    """The same in memory that a CPU device can use as it lies."""
    memory = np.zeros(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def test_codes_are_frozen_bit_for_bit_and_then_move(two_steps):
    (start, first, second), _ = two_steps
    np.testing.assert_array_equal(start.params["codebook"]["codes"], first.params["codebook"]["codes"])
    assert np.any(first.params["codebook"]["codes"] != second.params["codebook"]["codes"])


def test_teacher_follows_the_student_of_the_step_before(two_steps):
    (_, first, second), _ = two_steps
    assert set(second.teacher) == set(TEACHER_MODULES)
    for name in TEACHER_MODULES:
        expected = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, first.teacher[name], first.params[name])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), second.teacher[name], expected
        )


def test_queue_takes_the_teachers_features(two_steps):
    (_, first, second), batch = two_steps
    count = batch["id"].shape[1]
    assert list(first.queue.ids[:count]) == list(batch["id"][0]) and first.queue.ids[count] == -1
    np.testing.assert_allclose(np.linalg.norm(first.queue.image[:count], axis=1), 1.0, rtol=1e-5)
    assert int(second.queue.pointer) == 2 * count and int(second.step) == 2


def test_terms_add_up(tiny_run):
    line = json.loads((tiny_run / "metrics.jsonl").read_text().splitlines()[0])
    metrics = {name.removeprefix("train/"): value for name, value in line.items()}
    assert metrics["ica"] == pytest.approx(np.mean([metrics[t] for t in ("i2t", "t2i", "i2i", "t2t")]), rel=1e-5)
    assert metrics["code"] == pytest.approx(metrics["ot"] + metrics["i2p"] + metrics["t2p"], rel=1e-5)
    assert metrics["loss"] == pytest.approx(sum(metrics[t] for t in ("mlm", "itm", "ica", "code")), rel=1e-5)


@pytest.mark.slow
def test_runs_of_two_seeds_share_one_program():
    """The seed is data: the same program draws other masks and negatives by it."""
    (one, state, batch), (other, _, _) = (make(tiny_config(seed=seed)) for seed in (0, 1))
    assert one.lower(state, batch).as_text() == other.lower(state, batch).as_text()
    _, metrics = one(state, batch)
    _, again = one(state.replace(seed=devices.replicate(np.uint32(1))), batch)
    assert devices.fetch(metrics)["mlm"] != devices.fetch(again)["mlm"]


@pytest.fixture(scope="module")
def contrast_alone():
    """What `make` gives of the contrastive losses and plain gradient descent."""
    return make(tiny_config(loss_weights__itm=0.0, loss_weights__mlm=0.0, loss_weights__code=0.0), optax.sgd(0.1))


def test_losses_left_out_leave_their_parameters_alone(contrast_alone):
    step, state, batch = contrast_alone
    before = devices.fetch(state.params)
    after, metrics = step(state, batch)
    after = devices.fetch(after.params)
    for name in ("fusion_encoder", "matching_head", "masked_token_head", "codebook"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    assert np.any(before["image_projection"]["kernel"] != after["image_projection"]["kernel"])
    assert "itm" not in metrics and "ot" not in metrics


def test_temperature_is_kept_in_its_range(contrast_alone):
    step, state, batch = contrast_alone
    state = state.replace(params={**state.params, "temperature": {"value": devices.replicate(np.float32(3.0))}})
    after, _ = step(state, batch)
    assert float(devices.fetch(after.params["temperature"]["value"])) == pytest.approx(0.5)


def test_no_gradient_reaches_the_text_side_through_image_queries():
    """The keys are the teacher's: the images' queries alone teach the image encoder and the temperature."""
    config = tiny_config(loss_weights__itm=0.0, loss_weights__mlm=0.0, loss_weights__code=0.0, contrast__terms=("i2t",))
    step, state, batch = make(config, optax.sgd(1.0))
    before = devices.fetch(state.params)
    after = devices.fetch(step(state, batch)[0].params)
    for name in ("text_encoder", "text_projection"):
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    assert np.any(before["temperature"]["value"] != after["temperature"]["value"])
    assert jnp.any(before["image_encoder"]["cls_token"] != after["image_encoder"]["cls_token"])
