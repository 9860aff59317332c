"""Benchmark of the training step in turns with the same step in PyTorch, each in a process of its own.

The peer lives with the tests, `tests/peers/codis.py`: it needs a checkout. Its process imports neither JAX nor Flax,
nor ours PyTorch, so that the peak memory of each is its own.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import multiprocessing
import os
import pathlib
import pickle
import sys
import tempfile
import time
from typing import Any

import numpy as np

from cbalign.errors import UserError

_PEER = pathlib.Path("tests", "peers", "codis.py")
_WARM_UP = 3
# Between turns, so that threads of the process that has just finished no longer spin.
_PAUSE = 0.02


def measure(config: Any, *, repeats: int) -> dict:
    """Times our step and PyTorch's, eager and compiled, on the same weights and batch.

    Each mode of the peer alternates with ours; a ratio above 1 says that ours is faster. Memory is the peak resident
    size of a process over the timed steps or, on a GPU, the peak of what the library's allocator gave out.

    Args:
      config: of a pretraining run.
      repeats: timed steps of each in either mode.

    Returns:
      Figures by name, the difference of the first losses among them where there is no dropout; where the peer cannot be
      compiled, "compiled_skipped" says why.

    Raises:
      UserError: no checkout, no PyTorch, several devices, or a config the peer does not compute.
    """
    root = pathlib.Path(__file__).parents[2]
    if not (root / _PEER).is_file():
        raise UserError(f"--peer=torch needs a checkout: {_PEER} is not beside the package")
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--peer=torch needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        problem = os.path.join(folder, "problem.pickle")
        with _Worker(_serve_ours, config, problem) as ours:
            if "error" in ours.info:
                raise UserError(f"--peer=torch: {ours.info['error']}")
            result = {**ours.info, "batch_size": config.train.batch_size}
            for mode in ("eager", "compiled"):
                with _Worker(_serve_peer, str(root), problem, mode == "compiled", ours.info["platform"]) as peer:
                    if "error" in peer.info:
                        if mode == "eager":
                            raise UserError(f"--peer=torch: {peer.info['error']}")
                        result["compiled_skipped"] = peer.info["error"]
                        continue
                    result.update(_compare(mode, ours, peer, repeats))
                    if config.model.dropout:  # its masks differ, and so do the losses
                        del result[f"{mode}_first_loss_difference"]
    return result


def _compare(mode: str, ours: _Worker, peer: _Worker, repeats: int) -> dict:
    """Figures of one mode of the peer, the two taking turns, and the order from one pair to the next."""
    milliseconds: dict = {ours: [], peer: []}
    for worker in milliseconds:
        worker.ask("start")
    for i in range(repeats):
        for worker in (ours, peer) if i % 2 else (peer, ours):
            time.sleep(_PAUSE)
            milliseconds[worker].append(worker.ask("step"))
    own, theirs = (np.asarray(x) for x in milliseconds.values())
    found = {"step_ms": float(np.median(own)), "peer_ms": float(np.median(theirs))}
    found |= {"ratio": float(np.median(theirs / own)), "step_peak_bytes": ours.ask("memory")}
    found["peer_peak_bytes"] = peer.ask("memory")
    found["memory_ratio"] = found["peer_peak_bytes"] / found["step_peak_bytes"]
    found["peer_first_step_s"] = peer.info["first_step_s"]
    found["first_loss_difference"] = peer.info["first_loss"] - ours.info["first_loss"]
    versions = {name: x for name, x in peer.info.items() if name in ("torch", "transformers", "torch_threads")}
    return versions | {f"{mode}_{name}": x for name, x in found.items()}


class _Worker:
    """A process that answers questions; `info` is what it said first, {"error": one line} where it cannot work."""

    def __init__(self, serve, *args):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_guarded, args=(serve, other, *args), daemon=False)
        self._process.start()
        other.close()
        self.info = self._receive()

    def _receive(self):
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            return {"error": f"a process ended with exit code {self._process.exitcode}; is there enough memory?"}

    def ask(self, what: str) -> Any:
        """The answer to a question."""
        self._pipe.send(what)
        answer = self._receive()
        if isinstance(answer, dict):
            raise UserError(f"--peer=torch: {answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._pipe.close()
        self._process.join(10)
        self._process.terminate()


def _guarded(serve, pipe, *args) -> None:
    """Runs a process; whatever stops it is told in one line."""
    try:
        serve(pipe, *args)
    except EOFError:  # nobody asks any more
        return
    except UserError as error:
        pipe.send({"error": str(error)})
    except Exception as error:  # noqa: BLE001 - of any kind: the other process would wait for an answer
        lines = str(error).strip().splitlines() or [""]
        pipe.send({"error": f"{type(error).__name__}: {lines[0]}"})


def _answer(pipe, info: dict, *, step, peak, reset) -> None:
    """Says what it is, then answers "start" (the peak begins anew), "step" (its ms) and "memory" until the end."""
    pipe.send(info)
    while True:
        what = pipe.recv()
        if what == "start":
            for _ in range(_WARM_UP):
                step()
            reset()
            pipe.send(True)
        elif what == "step":
            start = time.perf_counter()
            step()
            pipe.send(1e3 * (time.perf_counter() - start))
        else:
            pipe.send(peak())


def _serve_ours(pipe, config, path: str) -> None:
    """Our step; the problem is written to `path` before the first step."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer is on the same GPU
    import jax

    from cbalign.bench.peer_problem import check_peer, describe, random_draws
    from cbalign.bench.step import compiled_memory, device_info, random_batch
    from cbalign.distributed import devices
    from cbalign.runs.train import state_factory, step_without_data

    if jax.device_count() > 1:
        raise UserError(f"the peer runs on one device, here are {jax.device_count()}")
    task, make_state, one_step = step_without_data(config, device_count=1)
    check_peer(task)
    state, batch = make_state(), random_batch(task)
    _, _, learning_rate = state_factory(task, task.config, steps_per_epoch=1)
    masked, noise = random_draws(task, seed=config.seed, step=0, batch=batch)
    with open(path, "wb") as file:
        problem = describe(task, state, learning_rate)
        pickle.dump({"problem": problem, "batch": batch, "masked": masked, "noise": noise}, file)
    del problem
    state, batch = devices.replicate(state), devices.feed(batch)
    start = time.perf_counter()
    compiled = devices.map_step(one_step).lower(state, batch).compile()
    info = {**device_info(), "jax": jax.__version__, "threads": _cores(), "compile_s": time.perf_counter() - start}
    info["xla_peak_bytes"] = compiled_memory(compiled).get("peak_bytes")

    def step():
        nonlocal state
        state, metrics = compiled(state, batch)
        return jax.block_until_ready(metrics)

    info["first_loss"] = float(devices.fetch(step())["loss"])
    on_gpu, device = jax.default_backend() == "gpu", jax.local_devices()[0]
    peak = (lambda: int(device.memory_stats()["peak_bytes_in_use"])) if on_gpu else _peak_resident
    _answer(pipe, info, step=step, peak=peak, reset=_reset_peak)


def _serve_peer(pipe, root: str, path: str, compiled: bool, platform: str) -> None:
    """PyTorch's step of the problem in `path`."""
    sys.path.insert(0, root)
    import torch
    import transformers

    codis = importlib.import_module("tests.peers.codis")
    if platform == "gpu" and not torch.cuda.is_available():
        raise UserError("JAX runs on a GPU, but this PyTorch finds none")
    if compiled and torch._dynamo.config.disable:
        raise UserError("TORCHDYNAMO_DISABLE is set")
    on_gpu = platform == "gpu"
    torch.manual_seed(0)
    torch.set_num_threads(_cores())
    with open(path, "rb") as file:
        given = pickle.load(file)
    peer = codis.Codis(given.pop("problem"), device="cuda" if on_gpu else "cpu", compiled=compiled)
    start = time.perf_counter()
    loss = peer.step(given["batch"], masked=given["masked"], noise=given["noise"])["loss"]
    info = {"torch": torch.__version__, "transformers": transformers.__version__, "torch_threads": _cores()}
    info |= {"first_step_s": time.perf_counter() - start, "first_loss": loss}
    _answer(
        pipe,
        info,
        step=lambda: peer.step(given["batch"]),
        peak=torch.cuda.max_memory_allocated if on_gpu else _peak_resident,
        reset=torch.cuda.reset_peak_memory_stats if on_gpu else _reset_peak,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _reset_peak() -> None:
    """Gives back what compilers left in the heap, and makes the kernel forget this process's peak so far."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):  # not Linux, or not glibc
        pass


def _peak_resident() -> int:
    """Peak resident bytes of this process since `_reset_peak`."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
