"""Runs some training steps on the number of devices XLA was told of, and writes what came out; a script, too, since the
number of devices is fixed once JAX has started.

  python tests/distributed/devices.py OUT.npz HOW [TASK [FIELD=VALUE …]]
"""

import sys

import jax
import numpy as np
import optax

from cbalign.bench.step import random_batch
from cbalign.config import override
from cbalign.distributed import devices
from cbalign.runs.train import bind_step, state_factory
from cbalign.tasks import TASKS
from cbalign.training.optimizer import parameter_names
from tests.tiny import tiny_config

STEPS = 3
TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 200}


def main(out, how, name="pretrain", *overrides, microbatches=1, group_size=8):
    """Writes metrics, gradients and queues of some steps of a task with dropout on."""
    config = tiny_config(
        task=name,
        model__dropout=0.1,
        loss_weights__mlm=float(name != "retrieval"),
        vqa__answers_per_question=2,
        vqa__answer_tokens=4,
    )
    if not TASKS[name].uses_queue:
        config.optimizer.groups = ((".*", 1.0, 1.0),)
    config.train.microbatches = microbatches
    config.train.batch_size, config.itm.group_size, config.codebook.queue_rows = 16, group_size, 16
    override(config, overrides)
    TASKS[name].check(config, devices=jax.device_count())
    task = TASKS[name](config, tokens=TOKENS)
    make, _, schedule = state_factory(task, config, steps_per_epoch=10)
    # With plain gradient descent at rate 1 the change of the parameters is the gradient itself.
    optimizer = optax.sgd(1.0)
    state = make()
    state = devices.replicate(state.replace(opt_state=optimizer.init(state.params)))
    names = parameter_names(state.params)
    step = devices.map_step(bind_step(task, config, optimizer=optimizer, learning_rate=schedule), how=how)
    saved = {}
    for i in range(STEPS):
        before = devices.fetch(state.params)
        batch = random_batch(task, seed=i)
        if "id" in batch:
            batch["id"] = batch["id"] // 2  # some pairs share an id
        batch["text"][:, 0] = 2
        state, metrics = step(state, devices.feed(batch))
        jax.block_until_ready(metrics)
        saved |= {f"{i}/metric/{name}": value for name, value in devices.fetch(metrics).items()}
        leaves = zip(names, jax.tree.leaves(before), jax.tree.leaves(devices.fetch(state.params)), strict=True)
        saved |= {f"{i}/gradient/{name}": old - new for name, old, new in leaves}
        # Small steps from there on, or the numbers run away.
        state = state.replace(params=devices.replicate(before))
    if task.uses_queue:
        saved["queue"] = devices.fetch(state.queue.image)
    np.savez(out, devices=jax.device_count(), **saved)


def one_device(made_once, task="pretrain"):
    """What `main` writes for a task on the one device of a test's process."""

    def make(folder):
        folder.mkdir()
        main(folder / "out.npz", "pmap", task)

    return dict(np.load(made_once(f"one_device_{task}", make) / "out.npz"))


if __name__ == "__main__":
    main(*sys.argv[1:])
