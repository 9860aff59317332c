"""A checkpoint that cannot be read: one short line with the remedy first, and the way back to the one before."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.training.checkpoints import Checkpoints


@dataclasses.dataclass
class State:
    """A state of two arrays."""

    step: jax.Array
    params: dict


def state(step):
    return State(devices.replicate(jnp.asarray(step)), devices.replicate({"w": jnp.full((64, 64), float(step))}))


@pytest.fixture
def saved(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step))
            checkpoints.wait()
    return tmp_path / "checkpoints"


def damage(folder, how):
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if how == "empty":
            path.write_bytes(b"")
        elif how == "noise":
            path.write_bytes(np.random.default_rng(0).bytes(len(path.read_bytes())))
        elif how == "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif "ocdbt" in path.as_posix() or path.parent.name == "d":
            path.unlink()


@pytest.mark.parametrize("how", ["empty", "noise", "half", "lost"])
def test_one_line_and_the_one_before(saved, how, capsys):
    damage(saved / "3", how)
    with Checkpoints(saved, keep=3) as checkpoints:
        if checkpoints.latest_step() == 3:
            with pytest.raises(UserError) as error:
                checkpoints.restore_newest(state(0))
            message = str(error.value)
            assert message.startswith("resume from step 2 with --fall-back") and str(saved / "3") in message
            assert len(message) < 500 and "\n" not in message
        restored = checkpoints.restore_newest(state(0), fall_back=True)
        assert int(restored.step) == 2 and float(restored.params["w"][0, 0]) == 2
        assert checkpoints.latest_step() == 2
        # The step that was damaged is saved again.
        checkpoints.save(3, state(3))
        checkpoints.wait()
        assert int(checkpoints.restore_newest(state(0)).step) == 3


def test_nothing_that_can_be_read(saved):
    for step in (1, 2, 3):
        damage(saved / str(step), "noise")
    with Checkpoints(saved, keep=3) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore_newest(state(0), fall_back=True)
    assert len(str(error.value)) < 500 and (saved / "3").exists()
