"""Benchmark of the compiled training step, on random batches."""

import time

import jax
import numpy as np

from cbalign.distributed import devices
from cbalign.runs.train import step_without_data


def device_info() -> dict:
    """Kind, platform and number of the devices."""
    return {"device": jax.devices()[0].device_kind, "platform": jax.default_backend(), "devices": jax.device_count()}


def random_batch(task, *, seed: int = 0) -> dict:
    """One process's part of a random batch with the task's shapes; texts have full length."""
    rng, processes = np.random.default_rng(seed), jax.process_count()

    def values(name, like):
        count = like.shape[0] // processes
        if name in ("id", "index"):
            return np.arange(count, dtype=np.int32) + jax.process_index() * count * (name == "index")
        if like.dtype == np.uint8:
            return rng.integers(0, 256, (count, *like.shape[1:])).astype(np.uint8)
        if like.dtype == np.float32:
            return np.full((count, *like.shape[1:]), 0.1, np.float32)
        high = len(task.classes) if name == "label" else task.tokens["vocab_size"]
        return rng.integers(0 if name == "label" else 5, high, (count, *like.shape[1:])).astype(np.int32)

    return {name: values(name, like) for name, like in task.batch_shapes().items()}


def compiled_memory(compiled) -> dict:
    """Bytes per device as XLA counts them, {} where it does not."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes", "alias_size_in_bytes")
    sizes = {name.removesuffix("_size_in_bytes") + "_bytes": int(getattr(analysis, name)) for name in names}
    # Outputs that alias donated arguments are counted once.
    peak = sizes["argument_bytes"] + sizes["output_bytes"] + sizes["temp_bytes"] - sizes["alias_bytes"]
    return {**sizes, "peak_bytes": peak}


def _time_step(compiled, state, batch, repeats: int):
    """Seconds of each of `repeats` steps, after three warm-up steps."""
    seconds = []
    for i in range(repeats + 3):
        start = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready(metrics)
        if i >= 3:
            seconds.append(time.perf_counter() - start)
    return seconds


def step(config, *, repeats: int) -> dict:
    """Benchmarks a config's training step: compile time, time per step, throughput, and XLA's FLOPs and memory.

    Bytes and FLOPs are per device.
    """
    task, make_state, one_step = step_without_data(config, device_count=jax.device_count())
    state, batch = devices.replicate(make_state()), devices.feed(random_batch(task))
    start = time.perf_counter()
    compiled = devices.map_step(one_step).lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    flops = float((compiled.cost_analysis() or {}).get("flops", float("nan")))
    seconds = float(np.median(_time_step(compiled, state, batch, repeats)))
    return {
        **device_info(),
        "batch_size": config.train.batch_size,
        "compile_s": compile_seconds,
        "step_ms": 1e3 * seconds,
        "pairs_per_second": config.train.batch_size / seconds,
        "flops_per_step": flops,
        "gflops_per_second": flops / seconds / 1e9,
        **compiled_memory(compiled),
    }
