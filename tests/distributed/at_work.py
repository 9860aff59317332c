"""One of several processes that do nothing but sum over all of them, step after step.

python tests/distributed/at_work.py HOST:PORT PROCESSES INDEX STEPS
"""

import sys
import time

import jax
import jax.numpy as jnp

from cbalign.distributed import devices, processes


def main(coordinator, count, index, steps):
    """Says "at work" after some steps and "done" after the last."""
    total = jax.pmap(devices.total, axis_name=devices.AXIS)
    joined = processes.joined(
        coordinator=coordinator, num_processes=int(count), process_id=int(index), agree_to_stop=True
    )
    with joined, processes.StopSignals() as signals:
        for step in range(1, int(steps) + 1):
            assert total(jnp.ones(1)) == int(count)
            signals.agreed(step)
            if step == 10:
                print("at work", flush=True)
            time.sleep(0.05)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
