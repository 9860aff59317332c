"""The one place that knows of devices: the map over them, gather and mean across them, placing and feeding.

The step is written for one device with one named axis. The state stays one replicated global array per leaf, without
a leading device axis, so that Orbax and single-device code see plain arrays; the batch is [local devices, pairs per
device, ...]. Collectives are called through this module only.
"""

import contextlib
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


def gather_within(tree, count: int):
    """`gather` among neighbours: [b, ...] on each device -> [count * b, ...] on the `count` devices of its block.

    Device d belongs to block d // count. Gradients flow back to the devices the rows came from.
    """
    if count == 1:
        return tree
    blocks = [list(range(first, first + count)) for first in range(0, device_count(), count)]
    return jax.tree.map(lambda x: lax.all_gather(x, AXIS, tiled=True, axis_index_groups=blocks), tree)


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


def mesh(devices=None) -> Mesh:
    """All devices of all processes on the one axis, or those given."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))


def map_step(step, *, donate: bool = True, how: str = "", devices=None):
    """Maps `step(state, batch) -> (state, metrics)` over all devices.

    Args:
      step: sees the whole state and one device's part of the batch; may call the collectives of this module. What it
        returns must be equal on all devices.
      donate: hand the old state's memory to the new one.
      how: "pmap", or "shard_map", which must do the same; by default the first for one process and the second for
        several, where pmap would hand back arrays of the local devices alone, which no checkpoint takes.
      devices: other devices than this run's, to compile for them ahead of time; with "shard_map" only.

    Returns:
      A compiled function (state, batch); the leaves of the batch are [local devices, pairs per device, ...].
    """
    donated = (0,) if donate else ()
    how = how or ("pmap" if jax.process_count() == 1 else "shard_map")
    if how == "pmap":
        return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=donated)

    def local_step(state, batch):
        return step(state, jax.tree.map(lambda x: x[0], batch))

    specs = dict(in_specs=(PartitionSpec(), PartitionSpec(AXIS)), out_specs=PartitionSpec())
    mapped = jax.shard_map(local_step, mesh=mesh(devices), check_vma=False, **specs)
    return jax.jit(mapped, donate_argnums=donated)


def replicate(tree):
    """Places a tree of host arrays, equal in all processes, as replicated global arrays."""
    sharding = NamedSharding(mesh(), PartitionSpec())

    def place(x):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x))

    return jax.tree.map(place, tree)


def replicated_like(tree, *, devices=None):
    """Shapes and dtypes of `tree` with the sharding of `replicate`: what a checkpoint is restored to."""
    sharding = NamedSharding(mesh(devices), PartitionSpec())
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


def fed_like(batch, *, devices):
    """Shapes and dtypes of a global batch [pairs, ...] as `feed` would place it over `devices`."""
    sharding, count = NamedSharding(mesh(devices), PartitionSpec(AXIS)), len(devices)

    def shape(x):
        return jax.ShapeDtypeStruct((count, x.shape[0] // count, *x.shape[1:]), x.dtype, sharding=sharding)

    return jax.tree.map(shape, batch)


def fetch(tree):
    """Brings replicated global arrays to the host as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


# On the devices of this process alone: evaluation.


def _local(spec) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), spec)


def copy_to_local(tree):
    """Places a tree of host arrays, or of replicated global ones, whole on every device of this process."""
    sharding = _local(PartitionSpec())

    def place(x):
        x = x.addressable_data(0) if isinstance(x, jax.Array) else np.asarray(x)
        return jax.device_put(x, sharding)

    return jax.tree.map(place, tree)


def spread_rows(function, *, whole: int):
    """Spreads the rows of a compiled function's arguments over this process's devices.

    Args:
      function: of arrays on this process's devices; row i of what it returns depends on row i of its row arguments.
      whole: the first arguments, from `copy_to_local`; every device has them in full. The others are host arrays of
        rows [b, ...].

    Returns:
      A function of the same arguments; b need not be a multiple of the number of devices.
    """
    sharding, devices = _local(PartitionSpec(AXIS)), jax.local_device_count()

    def place(x):
        missing = -len(x) % devices
        # The last row is repeated: a made-up one might not be finite.
        return jax.device_put(np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x, sharding)

    def spread(*arguments):
        rows = [np.asarray(x) for x in arguments[whole:]]
        result = function(*arguments[:whole], *map(place, rows))
        count = len(rows[0])
        return jax.tree.map(lambda x: x[:count], result) if count % devices else result

    return spread


def sum_over_processes(x):
    """The sum of the processes' host arrays, on all of them."""
    if jax.process_count() == 1:
        return x
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x)).sum(axis=0, dtype=x.dtype)


@functools.cache
def must_wait() -> bool:
    """Whether each step's result has to be awaited before the next is started.

    Several fake CPU devices (`--xla_force_host_platform_device_count`) share one thread pool; with two steps in flight
    their collectives can wait for each other for ever.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1


@contextlib.contextmanager
def first_then_others(name: str):
    """Process 0 goes through the block first, the others together once it is done."""
    if jax.process_index() > 0:
        barrier(name)
    yield
    if jax.process_index() == 0:
        barrier(name)


def meet() -> None:
    """Opens the ways between all devices of all processes, while these are at the same place.

    Gloo gives up when one of them comes half a minute later than another to the first collective, as it may when one
    compiles longer; once the ways are open, it waits.
    """
    ones = np.ones(jax.local_device_count(), np.int32)
    jax.block_until_ready(jax.pmap(lambda x: lax.psum(x, AXIS), axis_name=AXIS)(ones))
    barrier("meet")


def barrier(name: str) -> None:
    """Waits until all processes have come here; nothing where there is one."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
