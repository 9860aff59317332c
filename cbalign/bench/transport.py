"""Benchmark of the transport solvers on random features, beside OTT and POT where they are installed."""

import importlib.util
import time

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.bench.step import device_info, step
from cbalign.losses.transport import cosine_cost, ipot, sinkhorn

# A peer runs until its marginals are as good as IPOT's, but no longer than this.
_PEER_ITERATIONS = 5000


def transport(config, *, repeats: int, peer: bool = True, whole_step: bool = True) -> dict:
    """Times one transport plan of a config's size with IPOT and Sinkhorn, and with OTT's and POT's Sinkhorn.

    The peers solve at the entropic epsilon of IPOT's last step, beta / iterations, until the L1 error of the marginals
    is no larger than IPOT's; objective and error are given, for one that stopped early is no peer. `cpu_ms` counts all
    cores' time in the process, which other work on the machine disturbs less than `ms`.

    Args:
      config: whose global batch and queue rows are the rows, and whose codes are the columns.
      repeats: timed repeats; the median counts.
      peer: time OTT and POT as well.
      whole_step: time the whole training step as well, for the share of its two plans.
    """
    codebook, count = config.codebook, config.train.batch_size + config.codebook.queue_rows
    rng = np.random.default_rng(0)
    features, codes = (
        jnp.asarray(rng.normal(size=(size, config.model.embed_dim)), jnp.float32)
        for size in (count, codebook.num_codes)
    )
    cost = jax.jit(cosine_cost)(features, codes)
    steps = codebook.iterations if codebook.solver == "ipot" else 50
    result = {**device_info(), "rows": count, "codes": codebook.num_codes, "ipot_iterations": steps}

    def ours(name, solver, **options):
        compiled = jax.jit(lambda cost: solver(cost, **options)).lower(cost).compile()
        plan = np.asarray(compiled(cost), np.float64)
        result.update(
            _quality(name, plan, cost), **_timed(name, lambda: jax.block_until_ready(compiled(cost)), repeats)
        )
        result[f"{name}_temp_bytes"] = int(compiled.memory_analysis().temp_size_in_bytes)

    ours("ipot", ipot, beta=codebook.beta, iterations=steps)
    result["ipot_ns_per_entry_and_step"] = 1e6 * result["ipot_ms"] / (count * codebook.num_codes * steps)
    sweeps = codebook.iterations if codebook.solver == "sinkhorn" else 3
    ours("sinkhorn", sinkhorn, epsilon=codebook.epsilon, iterations=sweeps)
    if peer:
        for name, solver in _peers(cost, epsilon=codebook.beta / steps, error=result["ipot_error"]).items():
            plan = np.asarray(solver(), np.float64)
            result.update(_quality(name, plan, cost), **_timed(name, solver, repeats))
    if whole_step:
        result["step_ms"] = step(config, repeats=repeats)["step_ms"]
        result["two_plans_share_of_step"] = 2 * result[f"{codebook.solver}_ms"] / result["step_ms"]
    return result


def _quality(name: str, plan: np.ndarray, cost) -> dict:
    """The plan's objective <T, C> and the error of its marginals."""
    return {f"{name}_objective": float(np.sum(plan * np.asarray(cost))), f"{name}_error": _error(plan)}


def _timed(name: str, function, repeats: int) -> dict:
    """Median times of a call in ms; it has run before."""
    wall, cpu = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return {f"{name}_ms": 1e3 * float(np.median(wall)), f"{name}_cpu_ms": 1e3 * float(np.median(cpu))}


def _peers(cost, *, epsilon: float, error: float) -> dict:
    """{name: () -> plan} of the peers that are installed."""
    n, k = cost.shape
    found = {}
    if importlib.util.find_spec("ott"):
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn as ott_sinkhorn

        solver = ott_sinkhorn.Sinkhorn(threshold=error, max_iterations=_PEER_ITERATIONS, inner_iterations=5)
        solve = jax.jit(lambda c: solver(linear_problem.LinearProblem(geometry.Geometry(c, epsilon=epsilon))).matrix)
        found["ott"] = lambda: jax.block_until_ready(solve(cost))
    if importlib.util.find_spec("ot"):
        import ot

        rows, columns, matrix = np.full(n, 1 / n, np.float32), np.full(k, 1 / k, np.float32), np.array(cost)
        options = dict(reg=epsilon, stopThr=0.0, method="sinkhorn_log", warn=False)
        iterations = 10
        # POT's own threshold is of another error; each trial runs anew, the last one is what is timed.
        while _error(ot.sinkhorn(rows, columns, matrix, numItermax=iterations, **options)) > error:
            iterations = min(_PEER_ITERATIONS, iterations * 3 // 2)
            if iterations == _PEER_ITERATIONS:
                break
        found["pot"] = lambda: ot.sinkhorn(rows, columns, matrix, numItermax=iterations, **options)
    return found


def _error(plan) -> float:
    """|T 1 - u| + |T^T 1 - v| in L1, for uniform u and v."""
    plan = np.asarray(plan, np.float64)
    n, k = plan.shape
    return float(np.abs(plan.sum(1) - 1 / n).sum() + np.abs(plan.sum(0) - 1 / k).sum())
