"""The only module that handles devices: mapping the step, collectives, array placement and feeding batches.

The step is written for one device with one named axis. Each leaf of the state is a single replicated global array
without a leading device axis, so Orbax and single-device code see plain arrays; the batch is [local devices, pairs per
device, ...]. All collectives are called through this module.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


# Inside the mapped step:


def gather(x):
    """[b, ...] on each device -> [devices * b, ...] on all devices, in device order."""
    # On a single device a collective does nothing, but it copies its operand.
    return x if device_count() == 1 else lax.all_gather(x, AXIS, tiled=True)


def gather_within(tree, count: int):
    """`gather` within blocks: [b, ...] on each device -> [count * b, ...] on the `count` devices of its block.

    Device d belongs to block d // count. Gradients flow back to the device each row came from.
    """
    if count == 1:
        return tree
    blocks = [list(range(first, first + count)) for first in range(0, device_count(), count)]
    return jax.tree.map(lambda x: lax.all_gather(x, AXIS, tiled=True, axis_index_groups=blocks), tree)


def mean(tree):
    """Mean of every leaf over devices."""
    return tree if device_count() == 1 else lax.pmean(tree, AXIS)


def mean_in(tree, dtype):
    """Mean of every leaf over devices, summed in a dtype and returned in the leaf's own; on one device as it is."""
    if device_count() == 1:
        return tree
    return jax.tree.map(lambda x: mean(x.astype(dtype)).astype(x.dtype), tree)


def total(tree):
    """Sum of every leaf over devices."""
    return tree if device_count() == 1 else lax.psum(tree, AXIS)


def largest(tree):
    """Maximum of every leaf over devices."""
    return tree if device_count() == 1 else lax.pmax(tree, AXIS)


def own_part(tree):
    """[n, ...], equal on all devices -> this device's ceil(n / devices) consecutive rows; those beyond n are zeros."""
    count = device_count()

    def part(x):
        size = -(-x.shape[0] // count)
        x = jnp.pad(x, [(0, size * count - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
        return lax.dynamic_slice_in_dim(x, device_index() * size, size)

    return tree if count == 1 else jax.tree.map(part, tree)


def device_index():
    """Index of this device on the axis, int32."""
    return lax.axis_index(AXIS)


def device_count():
    """Number of devices on the axis, a Python int at trace time."""
    return lax.axis_size(AXIS)


# Outside the mapped step:


def mesh(devices=None) -> Mesh:
    """Mesh of all devices of all processes, or of the given ones, along the single axis."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))


def map_step(step, *, donate: bool = True, how: str = "", devices=None):
    """Maps `step(state, batch) -> (state, metrics)` over all devices.

    Args:
      step: takes the full state and one device's part of the batch; may call this module's collectives. Its outputs
        must be equal on all devices.
      donate: reuse the memory of the old state for the new one.
      how: "pmap" or "shard_map", which are equivalent. By default "pmap" for one process and "shard_map" for several:
        there, pmap would return arrays on local devices only, which cannot be checkpointed.
      devices: target devices for ahead-of-time compilation, if not this run's; "shard_map" only.

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
    """Places a tree of arrays, identical in all processes, as replicated global arrays that a step may be donated.

    The arrays of a single process are taken over without a copy: donating the result deletes them.
    """
    sharding = NamedSharding(mesh(), PartitionSpec())
    leaves, structure = jax.tree.flatten(tree)

    def stays(x):
        alone = jax.process_count() == 1
        return isinstance(x, jax.Array) and (alone or jnp.issubdtype(x.dtype, jax.dtypes.prng_key))

    def place(x):
        if stays(x):
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x))

    placed = [place(x) for x in leaves]
    viewed = [i for i, x in enumerate(leaves) if not stays(x)]
    for i, x in zip(viewed, owned([placed[i] for i in viewed]), strict=True):
        placed[i] = x
    return jax.tree.unflatten(structure, placed)


def owned(tree):
    """The same arrays in memory that the devices own, as those from host arrays or a checkpoint may not be.

    CPU devices use a host array's memory as it lies, and what they do not own cannot be donated: the first step would
    hold two states.
    """
    if jax.default_backend() != "cpu" or not tree:
        return tree
    shardings = jax.tree.map(lambda x: x.sharding, tree)
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)(tree)


def replicated_like(tree, *, devices=None):
    """Shapes and dtypes of `tree` with the sharding of `replicate`, as the target for restoring a checkpoint."""
    sharding = NamedSharding(mesh(devices), PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree)


def feed(batch: dict):
    """Places this process's part of a global batch.

    Args:
      batch: arrays [pairs of this process, ...].

    Returns:
      Global arrays [all devices, pairs per device, ...], sharded over the devices.
    """
    sharding = NamedSharding(mesh(), PartitionSpec(AXIS))
    local = jax.local_device_count()

    def place(x):
        x = np.asarray(x).reshape(local, -1, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, (jax.device_count(), *x.shape[1:]))

    return {name: place(x) for name, x in batch.items()}


def fed_like(batch, *, devices):
    """Shapes and dtypes of a global batch [pairs, ...] as `feed` would shard it over `devices`."""
    sharding, count = NamedSharding(mesh(devices), PartitionSpec(AXIS)), len(devices)

    def shape(x):
        return jax.ShapeDtypeStruct((count, x.shape[0] // count, *x.shape[1:]), x.dtype, sharding=sharding)

    return jax.tree.map(shape, batch)


def fetch(tree):
    """Copies replicated global arrays to the host as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


# On the local devices of this process, for evaluation:


def _local(spec) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), spec)


def copy_to_local(tree):
    """Copies a tree of host arrays or replicated global arrays to every device of this process."""
    sharding = _local(PartitionSpec())

    def place(x):
        x = x.addressable_data(0) if isinstance(x, jax.Array) else np.asarray(x)
        return jax.device_put(x, sharding)

    return jax.tree.map(place, tree)


def spread_rows(function, *, whole: int):
    """Shards the row arguments of a compiled function over this process's devices.

    Args:
      function: function of arrays on this process's devices; row i of its result depends only on row i of its row
        arguments.
      whole: number of leading arguments that come from `copy_to_local` and are replicated; the others are trees of host
        arrays of rows [b, ...].

    Returns:
      A function of the same arguments; b need not be a multiple of the number of devices.
    """
    sharding, devices = _local(PartitionSpec(AXIS)), jax.local_device_count()

    def place(x):
        missing = -len(x) % devices
        # Pad by repeating the last row; results of an artificial row might not be finite.
        return jax.device_put(np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x, sharding)

    def spread(*arguments):
        rows = jax.tree.map(np.asarray, arguments[whole:])
        result = function(*arguments[:whole], *jax.tree.map(place, rows))
        count = len(jax.tree.leaves(rows)[0])
        return jax.tree.map(lambda x: x[:count], result) if count % devices else result

    return spread


def sum_over_processes(x):
    """Sum of a host array over processes, on every process."""
    if jax.process_count() == 1:
        return x
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x)).sum(axis=0, dtype=x.dtype)


@functools.cache
def must_wait() -> bool:
    """Whether each step must finish before the next one is dispatched.

    Emulated CPU devices (`--xla_force_host_platform_device_count`) share one thread pool; with two steps in flight
    their collectives can deadlock.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1


@contextlib.contextmanager
def first_then_others(name: str):
    """Runs the block on process 0 first, then on all other processes at once."""
    if jax.process_index() > 0:
        barrier(name)
    yield
    if jax.process_index() == 0:
        barrier(name)


def meet() -> None:
    """Establishes the connections between all devices of all processes while the processes are synchronised.

    Gloo times out if one process reaches the first collective half a minute after another, which happens when one
    compiles longer. Once connected, it waits.
    """
    ones = np.ones(jax.local_device_count(), np.int32)
    jax.block_until_ready(jax.pmap(lambda x: lax.psum(x, AXIS), axis_name=AXIS)(ones))
    barrier("meet")


def barrier(name: str) -> None:
    """Waits until all processes reach this point; returns at once for a single process."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
