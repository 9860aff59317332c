"""The gradient made a part of the batch at a time: the same numbers, less memory."""

import jax
import numpy as np
import pytest

from cbalign.plan.ahead import traced_step
from tests.distributed import devices
from tests.distributed.test_devices import assert_equal_runs
from tests.tiny import tiny_config

# Each compiles a whole step.
pytestmark = pytest.mark.slow


def test_losses_and_gradients_are_those_of_the_whole_batch(tmp_path):
    """All losses on, some pairs of one id, negatives within groups of two, masks of different lengths."""
    for parts in (1, 8):
        devices.main(tmp_path / f"{parts}.npz", "pmap", microbatches=parts, group_size=2)
    assert_equal_runs(*(dict(np.load(tmp_path / f"{parts}.npz")) for parts in (1, 8)), 1)


@pytest.mark.parametrize("task", ["vqa", "nlvr2_pretrain", "nlvr2", "snli_ve"])
def test_the_same_for_the_tasks(tmp_path, made_once, task):
    devices.main(tmp_path / "out.npz", "pmap", task, microbatches=2)
    assert_equal_runs(devices.one_device(made_once, task), dict(np.load(tmp_path / "out.npz")), 1)


def test_memory_falls_nearly_in_proportion():
    """What comes and goes within the compiled step, where activations are most of it."""

    def temporaries(parts):
        config = tiny_config(
            train__batch_size=128,
            itm__group_size=8,
            queue__size=128,
            train__microbatches=parts,
            model__image_depth=4,
            data__image_size=64,
        )
        compiled = traced_step(config, jax.local_devices()[:1]).lower().compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one, eight = temporaries(1), temporaries(8)
    assert eight < 0.25 * one, (one, eight)
