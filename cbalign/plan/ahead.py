"""Compiles the training step and evaluation's calls ahead of time, for hardware you do not have."""

import contextlib
import dataclasses
import functools
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
from cbalign.plan import hlo
from cbalign.plan.chips import GIB, Topology
from cbalign.plan.collectives import collectives
from cbalign.plan.flops import product_flops, products
from cbalign.plan.profile import profile
from cbalign.runs.train import step_without_data
from cbalign.runs.workdir import task_class
from cbalign.storage import write_json

# Part of the cache key; incremented when `Compiled` or its computation changes.
_FORMAT = 3
# Learning rates, weights of losses, temperatures: they change a program's numbers, not its cost.
_FLOAT_CONSTANT = re.compile(r"(stablehlo\.constant dense<)[^<>\"]*(> : tensor<(?:f32|bf16|f16)>)")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Properties of a compiled program; bytes, FLOPs and seconds are per device.

    Attributes:
      fits: whether it fits in memory according to the compiler (the TPU compiler rejects what does not fit; the CPU
        compiler never does).
      peak_bytes: peak memory; for a program that does not fit, the memory it would need.
      argument_bytes, temporary_bytes: memory of arguments (state and batch), and of temporaries; None if it does not
        fit.
      flops, float32_flops, dense_bytes: of its matrix products, see `cbalign.plan.flops.Products`.
      collectives: see `cbalign.plan.collectives`; empty if it does not fit.
      seconds: compilation time.
      profile: fields of `cbalign.plan.profile.Profile`; None where the compiler gives no estimates: without a TPU
        compiler, at its lowest effort, or if the program does not fit.
    """

    fits: bool
    peak_bytes: int
    argument_bytes: int | None
    temporary_bytes: int | None
    flops: int
    float32_flops: int
    dense_bytes: int
    collectives: list
    seconds: float
    profile: dict | None


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


class Compiler:
    """Compiles for a topology; each program once, as far as programs that differ in constants alone cost the same.

    TPU programs are compiled by `libtpu`, those for GPUs by the CPU compiler over as many CPU devices.
    """

    def __init__(self, topology: Topology, *, cache: str = "", quick: bool = False, say=lambda text: None):
        """Prepares.

        Args:
          topology: target.
          cache: folder for cached results, keyed by program and compiler version; "" for none.
          quick: compile with the lowest effort, several times faster; the program is another one then, with the
            same memory within a few percent, and there is no profile.
          say: called with a line before each compilation.
        """
        self.topology, self.quick, self._cache, self._say = topology, quick, cache, say
        self._done: dict[str, Compiled] = {}

    @functools.cached_property
    def devices(self):
        """The devices of the topology, as targets of compilation.

        Raises:
          UserError: there is no compiler for the topology, or no such topology.
        """
        return _tpu_devices(self.topology) if self.topology.chip.is_tpu else _cpu_devices(self.topology.devices)

    def step(self, config) -> tuple[Compiled, bool]:
        """The training step of a config: (result, whether it came from the cache or an earlier call).

        Raises:
          UserError: the batch does not divide evenly over the devices, or another field does not fit them.
        """
        task_class(config).check(config, devices=self.topology.devices)
        return self.compile(traced_step(config, self.devices), f"the step of {config.task}")

    def call(self, function, arguments, what: str) -> tuple[Compiled, bool]:
        """A function on one device, of arguments given by shape; otherwise as `step`."""
        one = jax.sharding.SingleDeviceSharding(self.devices[0])
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), arguments)
        return self.compile(function.trace(*placed), what)

    def compile(self, traced, what: str) -> tuple[Compiled, bool]:
        """Compiles a traced function; `what` names it for `say`."""
        lowered = traced.lower()
        key = self._key(lowered)
        file = epath.Path(self._cache) / f"{key}.json" if self._cache else None
        if key not in self._done and file and file.exists():
            self._done[key] = Compiled(**json.loads(file.read_text()))
        if key in self._done:
            return self._done[key], True
        self._say(f"compiling {what} for {self.topology} ...")
        with _effort(self.quick):
            compiled = self._done[key] = self._compile(lowered, products(traced.jaxpr))
        if file:
            write_json(file, dataclasses.asdict(compiled))
        return compiled, False

    def _key(self, lowered) -> str:
        """A hash of everything the result depends on: program, topology, effort, compiler."""
        compiler = importlib.metadata.version("libtpu" if self.topology.chip.is_tpu else "jaxlib")
        program = _FLOAT_CONSTANT.sub(r"\1\2", lowered.as_text())
        parts = (str(_FORMAT), str(self.topology), str(self.quick), compiler, jax.__version__, program)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _compile(self, lowered, found) -> Compiled:
        start, counted = time.perf_counter(), dataclasses.asdict(found)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            needed = _bytes_refused(str(error))
            if needed is None:
                raise
            seconds = time.perf_counter() - start
            return Compiled(False, needed, None, None, **counted, collectives=[], seconds=seconds, profile=None)
        seconds = time.perf_counter() - start
        module, memory = hlo.parse(compiled.as_text()), compiled.memory_analysis()
        estimated = self.topology.chip.is_tpu and not self.quick
        # Outputs that alias donated arguments are counted once.
        fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return Compiled(
            True,
            memory.argument_size_in_bytes + memory.temp_size_in_bytes + fresh,
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes,
            **counted,
            collectives=collectives(module),
            seconds=seconds,
            profile=dataclasses.asdict(profile(module, self.topology)) if estimated else None,
        )


@contextlib.contextmanager
def _effort(quick: bool):
    """Sets the compiler's optimisation effort; -1 is the lowest."""
    before = jax.config.jax_exec_time_optimization_effort
    jax.config.update("jax_exec_time_optimization_effort", -1.0 if quick else before)
    try:
        yield
    finally:
        jax.config.update("jax_exec_time_optimization_effort", before)


def _bytes_refused(message: str) -> int | None:
    """Bytes a program would need, parsed from the TPU compiler's out-of-memory error; None for any other error."""
    match = re.search(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", message)
    return round(float(match[1]) * {"K": 2**10, "M": 2**20, "G": GIB}[match[2]]) if match else None


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
