"""Where a run starts from: the first of four places, told in the log; named checkpoints whole or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.runs.initialize import initial_state, parameter_table
from cbalign.training.checkpoints import Checkpoints
from cbalign.training.momentum_queue import init_queue
from cbalign.training.state import TrainState


def make_state(value=0.0, *, step=0, width=3, seed=3):
    params = {"head": {"kernel": jnp.full((2, width), value)}, "tower": {"bias": jnp.zeros(4)}}
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        teacher={"head": params["head"]},
        queue=init_queue(jax.random.key(0), size=4, width=2),
        opt_state={"mu": jnp.full(2, value)},
    )


def save(folder, value, step):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(step, devices.replicate(make_state(value, step=step)))
        checkpoints.wait()


def start(own, *, checkpoint="", weights=(), steps=100, make=make_state):
    def load_weights(state):
        return state.replace(params={**state.params, "head": {"kernel": np.full((2, 3), 9.0, np.float32)}}), ""

    with Checkpoints(own) as checkpoints:
        return initial_state(
            make,
            checkpoints,
            checkpoint=checkpoint,
            weights=weights,
            load_weights=load_weights,
            steps=steps,
            seed=8,
            batch_size=2,
        )


def value(begin):
    return float(begin.state.params["head"]["kernel"][0, 0])


def taken(begin):
    (line,) = [line for line in begin.origin.splitlines() if "<- taken" in line]
    return line


def test_the_four_places_in_their_order(tmp_path):
    save(tmp_path / "other" / "checkpoints", 5.0, 30)
    named = str(tmp_path / "other")
    scratch = start(tmp_path / "run")
    assert value(scratch) == 0 and "4. scratch" in taken(scratch) and len(scratch.origin.splitlines()) == 5
    weights = start(tmp_path / "run", weights=("w",))
    assert value(weights) == 9 and "3. init.weights" in taken(weights) and weights.step == 0
    whole = start(tmp_path / "run", checkpoint=named, weights=("w",))
    assert value(whole) == 5 and "2. init.checkpoint" in taken(whole) and named in taken(whole)
    assert whole.step == 30 and float(whole.state.opt_state["mu"][0]) == 5
    assert int(whole.state.seed) == 8  # this run's, and not that of the run it starts from
    save(tmp_path / "run", 7.0, 40)
    own = start(tmp_path / "run", checkpoint=named, weights=("w",))
    assert value(own) == 7 and "1. own checkpoint   step 40" in taken(own) and own.step == 40
    assert int(own.state.seed) == 3


@pytest.mark.parametrize("inner", ["", "checkpoints", "checkpoints/20"])
def test_a_workdir_its_checkpoints_or_one_of_them(tmp_path, inner):
    for step in (20, 30):
        with Checkpoints(tmp_path / "other" / "checkpoints", keep=2) as checkpoints:
            checkpoints.save(step, devices.replicate(make_state(step, step=step)))
            checkpoints.wait()
    begin = start(tmp_path / "run", checkpoint=str(tmp_path / "other" / inner))
    assert begin.step == value(begin) == (20 if inner.endswith("20") else 30)


def test_a_named_checkpoint_is_only_read(tmp_path):
    """The run that owns it may be saving: its half-written checkpoint stays."""
    folder = tmp_path / "other" / "checkpoints"
    save(folder, 5.0, 30)
    half = folder / "40.orbax-checkpoint-tmp"
    half.mkdir()
    before = sorted(folder.rglob("*"))
    start(tmp_path / "run", checkpoint=str(tmp_path / "other"))
    assert sorted(folder.rglob("*")) == before


def test_named_checkpoints_that_cannot_be_used(tmp_path):
    save(tmp_path / "other" / "checkpoints", 5.0, 30)
    with pytest.raises(UserError, match="holds no checkpoint"):
        start(tmp_path / "run", checkpoint=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="does not match this config .*name the run in init.weights"):
        start(tmp_path / "run", checkpoint=str(tmp_path / "other"), make=lambda: make_state(width=5))
    with pytest.raises(UserError, match="is at step 30, which counts towards train.steps=30"):
        start(tmp_path / "run", checkpoint=str(tmp_path / "other"), steps=30)


def test_table_of_what_was_loaded(tmp_path):
    begin = start(tmp_path / "run", weights=("w",))
    lines = parameter_table(devices.fetch(begin.state.params), initial_rms=begin.initial_rms).splitlines()
    assert lines[1].split() == ["head", "6", "9.0000", "0.0000"]
    assert lines[2].split() == ["tower", "4", "0.0000", "0.0000"]
    assert lines[3].split() == ["all", "10"]
