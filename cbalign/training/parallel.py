"""The one place that knows of devices: the map over them, gather and mean across them, placing and feeding.

The step is written for one device with one named axis. The state stays one replicated global array per leaf, without
a leading device axis, so that Orbax and single-device code see plain arrays; the batch is [local devices, pairs per
device, ...]. Collectives are called through this module only.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


# Inside the mapped step.


def gather(x):
    """[b, ...] on each device -> [devices * b, ...] on all, in the order of the devices."""
    return lax.all_gather(x, AXIS, tiled=True)


def mean(tree):
    """The mean over devices of every leaf."""
    return lax.pmean(tree, AXIS)


def total(tree):
    """The sum over devices of every leaf."""
    return lax.psum(tree, AXIS)


def device_index():
    """This device's place on the axis, int32."""
    return lax.axis_index(AXIS)


def device_count():
    """The number of devices on the axis, a Python int while the step is traced."""
    return lax.axis_size(AXIS)


# Outside of it.


def mesh() -> Mesh:
    """All devices of all processes on the one axis."""
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def map_step(step, *, donate: bool = True, how: str = "pmap"):
    """Maps `step(state, batch) -> (state, metrics)` over all devices.

    Args:
      step: sees the whole state and one device's part of the batch; may call the collectives of this module. What it
        returns must be equal on all devices.
      donate: hand the old state's memory to the new one.
      how: "pmap", or "shard_map", which must do the same.

    Returns:
      A compiled function (state, batch); the leaves of the batch are [local devices, pairs per device, ...].
    """
    donated = (0,) if donate else ()
    if how == "pmap":
        return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=donated)

    def local_step(state, batch):
        return step(state, jax.tree.map(lambda x: x[0], batch))

    specs = dict(in_specs=(PartitionSpec(), PartitionSpec(AXIS)), out_specs=PartitionSpec())
    return jax.jit(jax.shard_map(local_step, mesh=mesh(), check_vma=False, **specs), donate_argnums=donated)


def replicate(tree):
    """Places a tree of host arrays, equal in all processes, as replicated global arrays."""
    sharding = NamedSharding(mesh(), PartitionSpec())

    def place(x):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x))

    return jax.tree.map(place, tree)


def replicated_like(tree):
    """Shapes and dtypes of `tree` with the sharding of `replicate`: what a checkpoint is restored to."""
    sharding = NamedSharding(mesh(), PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree)


def feed(batch: dict):
    """Places this process's part of a global batch.

    Args:
      batch: arrays [pairs of this process, ...].

    Returns:
      Global arrays [all devices, pairs per device, ...], spread over the devices.
    """
    sharding = NamedSharding(mesh(), PartitionSpec(AXIS))
    local = jax.local_device_count()

    def place(x):
        x = np.asarray(x).reshape(local, -1, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, (jax.device_count(), *x.shape[1:]))

    return {name: place(x) for name, x in batch.items()}


def fetch(tree):
    """Brings replicated global arrays to the host as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


@functools.cache
def must_wait() -> bool:
    """Whether each step's result has to be awaited before the next is started.

    Several fake CPU devices (`--xla_force_host_platform_device_count`) share one thread pool; with two steps in flight
    their collectives can wait for each other for ever.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1


def barrier(name: str) -> None:
    """Waits until all processes have come here; nothing where there is one."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
