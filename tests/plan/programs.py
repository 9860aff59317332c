"""Compiles small programs over four CPU devices and prints the collectives read from them, as JSON; a script of its own,
since the number of devices is fixed once JAX has started.

  XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/plan/programs.py
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cbalign.plan.collectives import collectives
from cbalign.plan.hlo import parse

MESH = Mesh(np.array(jax.devices()), ("d",))


def summed(x):
    return jax.lax.psum(x, "d")


def gathered(x):
    return jax.lax.all_gather(x, "d", tiled=True)


def scattered(x):
    return jax.lax.psum_scatter(x, "d", tiled=True)


def passed(x):
    return jax.lax.ppermute(x, "d", [(i, (i + 1) % 4) for i in range(4)])


def looped(x):
    return jax.lax.scan(lambda c, _: (jnp.sin(jax.lax.psum(c, "d")), None), x, None, length=7)[0]


def main():
    found = {}
    for function in (summed, gathered, scattered, passed, looped):
        # Of its own each device has 8 x 3 numbers of 4 bytes.
        mapped = jax.jit(
            jax.shard_map(
                function, mesh=MESH, in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d"), check_vma=False
            )
        )
        compiled = mapped.lower(jax.ShapeDtypeStruct((32, 3), jnp.float32)).compile()
        found[function.__name__] = collectives(parse(compiled.as_text()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
