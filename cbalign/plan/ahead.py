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

# Part of what a compilation is kept under; goes up when `Compiled` or how it is found changes.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What is known of a step after compiling it; bytes and FLOPs are of one device.

    Attributes:
      fits: whether the compiler could place it (a compiler for a TPU refuses what does not fit; the CPU's never does).
      peak_bytes: most memory in use at once; of a step that does not fit, what it would take.
      argument_bytes, temporary_bytes: state and batch, and what comes and goes; None where it does not fit.
      flops: of matrix products, see `product_flops`.
      collectives: see `cbalign.plan.hlo`; empty where it does not fit.
      seconds: the compilation took.
    """

    fits: bool
    peak_bytes: int
    argument_bytes: int | None
    temporary_bytes: int | None
    flops: int
    collectives: list
    seconds: float


def traced_step(config, targets):
    """The training step of a config over the devices `targets`, traced for shapes alone: no parameter is ever made."""
    task, make_state, step = step_without_data(config, device_count=len(targets))
    mapped = devices.map_step(step, how="shard_map", devices=targets)
    state = devices.replicated_like(jax.eval_shape(make_state), devices=targets)
    return mapped.trace(state, devices.fed_like(task.batch_shapes(), devices=targets))


def flops_per_pair(config) -> float:
    """FLOPs of the training step's matrix products for one pair, of a config's step on a single device."""
    traced = traced_step(config, jax.local_devices(backend="cpu")[:1])
    return product_flops(traced.jaxpr) / config.train.batch_size


def compile_step(config, topology: Topology, *, cache: str = "", thorough: bool = False) -> tuple[Compiled, bool]:
    """Compiles the training step of a config for a topology.

    Args:
      config: checked.
      topology: TPUs are compiled for by `libtpu`; a GPU's step by the CPU's compiler, over so many CPU devices.
      thorough: compile as a run does; otherwise with the compiler's least effort for speed, several times faster.
      cache: folder that keeps what was found out, under the program's text and the compiler's version; "" for none.

    Returns:
      (what came out, whether it was found in the cache).

    Raises:
      UserError: no compiler for it, no such topology, a batch that does not divide.
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
    """How hard the compiler looks for a faster program; -1 is least."""
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
    # Outputs that take the place of donated arguments are counted once.
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + fresh
    return Compiled(True, peak, memory.argument_size_in_bytes, memory.temp_size_in_bytes, flops,
                    collectives(compiled.as_text()), seconds)


def _bytes_refused(message: str) -> int | None:
    """What a program would have taken, from the TPU compiler's refusal; None where it failed for another reason."""
    match = re.search(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", message)
    return round(float(match[1]) * {"K": 2**10, "M": 2**20, "G": GIB}[match[2]]) if match else None


def _key(lowered, topology: Topology, thorough: bool) -> str:
    """What a compilation depends on: the program, for what, and by which compiler."""
    compiler = importlib.metadata.version("libtpu" if topology.chip.is_tpu else "jaxlib")
    parts = (str(_FORMAT), str(topology), str(thorough), compiler, jax.__version__, lowered.as_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def libtpu_requirement() -> str:
    """What the installed JAX asks for as its TPU compiler, as in "libtpu==0.0.42.*"."""
    wanted = (r.partition(";")[0].strip() for r in importlib.metadata.requires("jax") or () if r.startswith("libtpu"))
    return next(wanted, "libtpu")


def _tpu_devices(topology: Topology):
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"planning for {topology} takes the TPU compiler, which needs no TPU: "
                        f"pip install '{libtpu_requirement()}'")
    from jax.experimental import topologies

    # Nothing here touches a TPU: no question to the metadata server of a cloud, no lock against other processes, and no
    # words on the devices that are missing.
    for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
                        ("TPU_WORKER_HOSTNAMES", "localhost"), ("TPU_ACCELERATOR_TYPE", "v4-8"),
                        ("TPU_STDERR_LOG_LEVEL", "3"), ("TPU_MIN_LOG_LEVEL", "3")):
        os.environ.setdefault(name, value)
    options = {}
    if topology.chip.dimensions == 3:
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device, as a v4 or v5p shows them
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=str(topology), **options)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"the TPU compiler knows no topology {topology}: {str(error).splitlines()[0]}") from error
    assert len(described.devices) == topology.devices, (len(described.devices), topology)
    return described.devices


def _cpu_devices(count: int):
    """That many devices of the CPU backend; used as compilation targets only."""
    if count > 1:
        with contextlib.suppress(RuntimeError):  # the backend has started: it has as many as it has
            jax.config.update("jax_num_cpu_devices", count)
    available = jax.local_devices(backend="cpu")
    if len(available) < count:
        raise UserError(f"the step was to be compiled for {count} devices, but JAX has started with {len(available)} of the "
                        "CPU; plan for the largest number of GPUs first, or one topology at a time")
    return available[:count]
