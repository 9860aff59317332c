"""Compiles the training step of a config ahead of time, for hardware you do not have."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import time

import jax
from etils import epath

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.plan.chips import GIB, Topology
from cbalign.plan.flops import product_flops
from cbalign.plan.hlo import collectives
from cbalign.runs.train import step_without_data
from cbalign.runs.workdir import task_class
from cbalign.storage import write_json

# Part of the cache key; incremented when `Compiled` or its computation changes.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Properties of a compiled step; bytes and FLOPs are per device.

    Attributes:
      fits: whether it fits in memory according to the compiler (the TPU compiler rejects what does not fit; the CPU
        compiler never does).
      peak_bytes: peak memory; for a step that does not fit, the memory it would need.
      argument_bytes, temporary_bytes: memory of state and batch, and of temporaries; None if it does not fit.
      flops: FLOPs of matrix products, see `product_flops`.
      collectives: see `cbalign.plan.hlo`; empty if it does not fit.
      seconds: compilation time.
    """

    fits: bool
    peak_bytes: int
    argument_bytes: int | None
    temporary_bytes: int | None
    flops: int
    collectives: list
    seconds: float


def traced_step(config, targets):
    """Traces a config's training step over the devices `targets` from shapes only; no parameters are allocated."""
    task, make_state, step = step_without_data(config, device_count=len(targets))
    mapped = devices.map_step(step, how="shard_map", devices=targets)
    state = devices.replicated_like(jax.eval_shape(make_state), devices=targets)
    return mapped.trace(state, devices.fed_like(task.batch_shapes(), devices=targets))


def flops_per_pair(config) -> float:
    """FLOPs per pair of the matrix products in a config's training step, traced for a single device."""
    traced = traced_step(config, jax.local_devices(backend="cpu")[:1])
    return product_flops(traced.jaxpr) / config.train.batch_size


def compile_step(config, topology: Topology, *, cache: str = "", thorough: bool = False) -> tuple[Compiled, bool]:
    """Compiles the training step of a config for a topology.

    Args:
      config: a checked config.
      topology: for TPUs, `libtpu` compiles the step; for GPUs, the CPU compiler does, over as many CPU devices.
      cache: folder for cached results, keyed by program text and compiler version; "" for none.
      thorough: compile with the same effort as a run; the default uses the lowest effort, several times faster.

    Returns:
      (result, whether it came from the cache).

    Raises:
      UserError: there is no compiler for the topology, no such topology, or the batch does not divide evenly.
    """
    task_class(config).check(config, devices=topology.devices)
    traced = traced_step(config, _tpu_devices(topology) if topology.chip.is_tpu else _cpu_devices(topology.devices))
    lowered = traced.lower()
    file = epath.Path(cache) / f"{_key(lowered, topology, thorough)}.json" if cache else None
    if file and file.exists():
        return Compiled(**json.loads(file.read_text())), True
    with _effort(thorough):
        compiled = _compile(lowered, flops=product_flops(traced.jaxpr))
    if file:
        write_json(file, dataclasses.asdict(compiled))
    return compiled, False


@contextlib.contextmanager
def _effort(thorough: bool):
    """Sets the compiler's optimisation effort; -1 is the lowest."""
    before = jax.config.jax_exec_time_optimization_effort
    jax.config.update("jax_exec_time_optimization_effort", before if thorough else -1.0)
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)


def _compile(lowered, *, flops: int) -> Compiled:
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _bytes_refused(str(error))
        if needed is None:
            raise
        return Compiled(False, needed, None, None, flops, [], time.perf_counter() - start)
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    # Outputs that alias donated arguments are counted once.
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + fresh
    return Compiled(
        True,
        peak,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        flops,
        collectives(compiled.as_text()),
        seconds,
    )


def _bytes_refused(message: str) -> int | None:
    """Bytes a program would need, parsed from the TPU compiler's out-of-memory error; None for any other error."""
    match = re.search(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", message)
    return round(float(match[1]) * {"K": 2**10, "M": 2**20, "G": GIB}[match[2]]) if match else None


def _key(lowered, topology: Topology, thorough: bool) -> str:
    """Cache key: a hash of everything the result depends on (program, topology, effort, compiler)."""
    compiler = importlib.metadata.version("libtpu" if topology.chip.is_tpu else "jaxlib")
    parts = (str(_FORMAT), str(topology), str(thorough), compiler, jax.__version__, lowered.as_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def libtpu_requirement() -> str:
    """The TPU compiler that the installed JAX requires, such as "libtpu==0.0.42.*"."""
    wanted = (r.partition(";")[0].strip() for r in importlib.metadata.requires("jax") or () if r.startswith("libtpu"))
    return next(wanted, "libtpu")


def _tpu_devices(topology: Topology):
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"planning for {topology} requires the TPU compiler, which runs without a TPU: "
            f"pip install '{libtpu_requirement()}'"
        )
    from jax.experimental import topologies

    # Compilation does not touch a TPU: skip the cloud metadata query and the lock against other processes, and silence
    # warnings about missing devices.
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v4-8"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
        ("TPU_MIN_LOG_LEVEL", "3"),
    ):
        os.environ.setdefault(name, value)
    options = {}
    if topology.chip.dimensions == 3:
        options["chip_config_name"] = "megacore"  # both cores of a chip form one device, as on v4 and v5p
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=str(topology), **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the TPU compiler does not support the topology {topology}: {reason}") from error
    assert len(described.devices) == topology.devices, (len(described.devices), topology)
    return described.devices


def _cpu_devices(count: int):
    """`count` devices of the CPU backend, used only as compilation targets."""
    if count > 1:
        with contextlib.suppress(RuntimeError):  # the backend is running: its number of devices is fixed
            jax.config.update("jax_num_cpu_devices", count)
    available = jax.local_devices(backend="cpu")
    if len(available) < count:
        raise UserError(
            f"compiling for {count} devices needs {count} CPU devices, but JAX has started with "
            f"{len(available)}; plan for the largest number of GPUs first, or one topology at a time"
        )
    return available[:count]
