"""Runs some training steps on the number of devices XLA was told of, and writes what came out; a script of its own,
since the number of devices is fixed once JAX has started.

  python tests/training/devices.py OUT.npz HOW
"""

import sys

import jax
import numpy as np
import optax

from cbalign.bench.step import made_up_batch
from cbalign.tasks.pretrain import Pretrain
from cbalign.training import loop
from cbalign.distributed import devices
from cbalign.training.optimizer import parameter_names
from tests.tiny import tiny_config

STEPS = 3


def main(out, how, microbatches=1):
    config = tiny_config()
    config.train.microbatches = microbatches
    config.train.batch_size, config.itm.group_size, config.codebook.queue_rows = 16, 2, 16
    task = Pretrain(config, tokens={"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 200})
    make, _, schedule = loop.state_factory(task, config, steps_per_epoch=10)
    # With plain gradient descent at rate 1 the change of the parameters is the gradient itself.
    optimizer = optax.sgd(1.0)
    state = make()
    state = devices.replicate(state.replace(opt_state=optimizer.init(state.params)))
    names = parameter_names(state.params)
    step = devices.map_step(loop.bind_step(task, config, optimizer=optimizer, schedule=schedule), how=how)
    saved = {}
    for i in range(STEPS):
        before = devices.fetch(state.params)
        batch = made_up_batch(config, vocab_size=200, seed=i)
        batch["id"] = batch["id"] // 2  # some pairs share an id
        batch["text"][:, 0] = 2
        state, metrics = step(state, devices.feed(batch))
        jax.block_until_ready(metrics)
        saved |= {f"{i}/metric/{name}": value for name, value in devices.fetch(metrics).items()}
        leaves = zip(names, jax.tree.leaves(before), jax.tree.leaves(devices.fetch(state.params)), strict=True)
        saved |= {f"{i}/gradient/{name}": old - new for name, old, new in leaves}
        # Small steps from there on, or the numbers run away.
        state = state.replace(params=devices.replicate(before))
    saved["queue"] = devices.fetch(state.queue.image)
    np.savez(out, devices=jax.device_count(), **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
