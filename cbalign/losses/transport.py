"""Optimal transport between a batch of features and the codes of the codebook.

The problem is min_{T in Pi(u, v)} <T, D>, Pi(u, v) = {T >= 0 : T 1 = u, T^T 1 = v}. Both solvers carry the logarithms
of the scalings. A pass over the matrix takes one exponential an entry, of a plan that is already nearly right, whose
row and column sums are matrix-vector products; where these leave float32's range, as at extreme regularisation, the
pass is done again with logarithms of sums. Plans carry no gradient.

The rows may be spread over devices, each of which solves for its own: `across` sums and maximises over the devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr, logsumexp

SOLVERS = ("ipot", "sinkhorn")
# Sums outside of this range may have lost terms to underflow that matter.
_SMALLEST, _LARGEST = 1e-20, 1e20


class Alone:
    """Stands for `across` where all rows are here."""

    total = staticmethod(lambda x: x)
    largest = staticmethod(lambda x: x)


class _Side(NamedTuple):
    """Rows or columns: which have mass, and its logarithm (0 where there is none)."""

    support: jax.Array
    log_marginal: jax.Array

    def potential(self, log_sums):
        """The potential that brings sums to the marginal; 0 outside the support."""
        return jnp.where(self.support, self.log_marginal - log_sums, 0.0)

    def lost(self, sums):
        """Whether a sum of the support is out of the range in which it can be trusted; NaN is."""
        return jnp.any(self.support & ~((sums > _SMALLEST) & (sums < _LARGEST)))


def l2_normalise(vectors):
    """Rows scaled to unit length, float32; all-zero rows stay zero, with a finite gradient."""
    vectors = vectors.astype(jnp.float32)
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squared, 1e-24))


def cosine_similarity(features, codes):
    """[n, d] x [K, d] -> [n, K] cosines in float32; normalises both arguments, which carry gradient."""
    # At default precision, TPUs and recent GPUs round the operands to bfloat16 or TF32.
    return jnp.matmul(l2_normalise(features), l2_normalise(codes).T, precision=jax.lax.Precision.HIGHEST)


def cosine_cost(features, codes):
    """Cosine distance d(z, c) = 1 - z^T c of the normalised vectors.

    Args:
      features: [n, d] any float dtype; rows of any length.
      codes: [K, d] any float dtype; rows of any length.

    Returns:
      [n, K] float32 in [0, 2]; gradient reaches both arguments.
    """
    return 1.0 - cosine_similarity(features, codes)


def _problem(cost, row_marginal, column_marginal, scale):
    """Log-kernel -cost / scale, -inf outside the support, and both sides.

    Row minima are subtracted: this only shifts the row potentials (plans are invariant to it) and keeps the exponents,
    hence their rounding errors, small.
    """
    cost = jax.lax.stop_gradient(cost).astype(jnp.float32)
    if cost.ndim != 2:
        raise ValueError(f"cost must be [n, K], got shape {cost.shape}")

    def side(marginal, size, name):
        if marginal is None:
            return _Side(jnp.ones(size, bool), jnp.full(size, -jnp.log(jnp.float32(size))))
        marginal = jax.lax.stop_gradient(jnp.asarray(marginal, jnp.float32))
        if marginal.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), got {marginal.shape}")
        support = marginal > 0
        return _Side(support, jnp.log(jnp.where(support, marginal, 1.0)))

    rows = side(row_marginal, cost.shape[0], "row_marginal")
    columns = side(column_marginal, cost.shape[1], "column_marginal")
    cost = cost - jnp.min(cost, axis=1, keepdims=True)
    inside = rows.support[:, None] & columns.support[None, :]
    return jnp.where(inside, cost * (-1.0 / scale), -jnp.inf), rows, columns


def _column_log_sums(exponents, across):
    """Logarithms of sums of exponentials over all rows, of all devices: [n, K] -> [K]."""
    largest = across.largest(jnp.max(exponents, axis=0))
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    return jnp.log(across.total(jnp.sum(jnp.exp(exponents - largest[None, :]), axis=0))) + largest


def _product(matrix, vector):
    """Matrix-vector product; at default precision, TPUs and recent GPUs would round the operands."""
    return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)


def ipot(cost, row_marginal=None, column_marginal=None, *, beta=0.5, iterations=50, inner_sweeps=1, across=Alone):
    """Transport plan by the inexact proximal point method (IPOT, Xie et al., UAI 2019, algorithm 1).

    With G = exp(-cost / beta), T = 1, sigma = 1, repeat `iterations` times: Q = G * T; `inner_sweeps` times
    {delta = u / (Q sigma); sigma = v / (Q^T delta)}; T = diag(delta) Q diag(sigma). Since diagonal scalings commute
    with the element-wise product, T_t = exp(f_i + g_j - t cost_ij / beta), and only f, g and their last changes are
    carried. `iterations` is therefore also a sharpness: step t is a Sinkhorn sweep at entropic epsilon = beta / t.

    A step takes the exponentials of a prediction, T at f and g extrapolated from the two steps before; the prediction
    of g is the algorithm's own warm start g + log sigma. Row sums r of it give f, column sums weighted by u / r give g.

    Column sums are exact, row sums approximate: at the defaults the largest relative error is about 1e-3 for random
    features of width 256, and up to 1e-2 for width 16.

    Args:
      cost: [n, K], any float dtype; computed in float32.
      row_marginal: [n] mass of each row, or None for 1/n. Rows of zero mass get zero.
      column_marginal: [K] mass of each column, or None for 1/K. Columns of zero mass get zero.
      beta: proximal step, in units of the cost.
      iterations: proximal steps (static).
      inner_sweeps: Sinkhorn sweeps per proximal step (static).
      across: sums (`total`) and maximises (`largest`) over the devices that hold the other rows, such as the module
        `cbalign.distributed.devices` under a mapped step; the row marginal must then be given.

    Returns:
      [n, K] float32 plan, no gradient.

    Raises:
      ValueError: a cost that is not a matrix, a marginal of another shape, iterations or inner_sweeps below 1.
    """
    if iterations < 1 or inner_sweeps < 1:
        raise ValueError(f"iterations and inner_sweeps must be at least 1, got {iterations} and {inner_sweeps}")
    log_kernel, rows, columns = _problem(cost, row_marginal, column_marginal, beta)
    n, k = cost.shape

    def by_logarithms(t, f, g):
        log_power = log_kernel * t
        for _ in range(inner_sweeps):
            f = rows.potential(logsumexp(log_power + g[None, :], axis=1))
            g = columns.potential(_column_log_sums(log_power + f[:, None], across))
        return f, g

    def proximal_step(t, carry):
        f, g, change_f, change_g = carry
        t = jnp.asarray(t, jnp.float32)
        predicted_f, predicted_g = f + change_f, g + change_g
        plan = jnp.exp(log_kernel * t + predicted_f[:, None] + predicted_g[None, :])
        correction_f, correction_g, lost = jnp.zeros(n, jnp.float32), jnp.zeros(k, jnp.float32), jnp.asarray(False)
        for _ in range(inner_sweeps):
            row_sums = _product(plan, jnp.exp(correction_g))
            correction_f = rows.potential(jnp.log(row_sums))
            lost |= rows.lost(row_sums)
            # One sum over the devices: the last entry says whether any of them lost a row.
            sums = jnp.append(_product(jnp.exp(correction_f), plan), lost.astype(jnp.float32))
            sums = across.total(sums)
            correction_g = columns.potential(jnp.log(sums[:-1]))
            lost = ~(sums[-1] == 0) | columns.lost(sums[:-1])
        corrected = lambda t, f, g: (f + correction_f, g + correction_g)  # noqa: E731
        new_f, new_g = jax.lax.cond(lost, by_logarithms, corrected, t, predicted_f, predicted_g)
        return new_f, new_g, new_f - f, new_g - g

    zeros = jnp.zeros(n, jnp.float32), jnp.zeros(k, jnp.float32)
    f, g, _, _ = jax.lax.fori_loop(1, iterations + 1, proximal_step, (*zeros, *zeros))
    return jax.lax.stop_gradient(jnp.exp(log_kernel * float(iterations) + f[:, None] + g[None, :]))


def sinkhorn(cost, row_marginal=None, column_marginal=None, *, epsilon=0.05, iterations=3, across=Alone):
    """Entropic transport plan: argmin <T, cost> - epsilon H(T), by Sinkhorn sweeps that end on the rows.

    With uniform marginals and cost = 1 - scores this is SwAV's `distributed_sinkhorn` divided by n (whose result
    has rows that sum to one, where a plan has mass one). Row sums are exact, column sums approximate.

    Args:
      cost: [n, K], any float dtype; computed in float32.
      row_marginal: [n] mass of each row, or None for 1/n. Rows of zero mass get zero.
      column_marginal: [K] mass of each column, or None for 1/K. Columns of zero mass get zero.
      epsilon: entropic weight, in units of the cost.
      iterations: sweeps over columns and rows (static).
      across: see `ipot`.

    Returns:
      [n, K] float32 plan, no gradient.

    Raises:
      ValueError: a cost that is not a matrix, a marginal of another shape, iterations below 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    log_kernel, rows, columns = _problem(cost, row_marginal, column_marginal, epsilon)
    # SwAV starts from row scalings of one on the unshifted cost; here the row minima have been subtracted from it.
    shift = jax.lax.stop_gradient(jnp.min(cost.astype(jnp.float32), axis=1) / epsilon)
    initial = -shift

    def by_logarithms(log_kernel):
        def sweep(_, carry):
            f, _ = carry
            g = columns.potential(_column_log_sums(log_kernel + f[:, None], across))
            return rows.potential(logsumexp(log_kernel + g[None, :], axis=1)), g

        f, g = jax.lax.fori_loop(0, iterations, sweep, (initial, jnp.zeros(cost.shape[1], jnp.float32)))
        return jnp.exp(log_kernel + f[:, None] + g[None, :])

    kernel = jnp.exp(log_kernel)

    def sweep(_, carry):
        f, _, lost = carry
        sums = across.total(jnp.append(_product(jnp.exp(f), kernel), lost.astype(jnp.float32)))
        g = columns.potential(jnp.log(sums[:-1]))
        row_sums = _product(kernel, jnp.exp(g))
        lost = ~(sums[-1] == 0) | columns.lost(sums[:-1]) | rows.lost(row_sums)
        return rows.potential(jnp.log(row_sums)), g, lost

    start = initial, jnp.zeros(cost.shape[1], jnp.float32), jnp.asarray(False)
    f, g, lost = jax.lax.fori_loop(0, iterations, sweep, start)
    lost = across.total(lost.astype(jnp.float32)) > 0
    plan = jax.lax.cond(lost, by_logarithms, lambda _: kernel * jnp.exp(f)[:, None] * jnp.exp(g)[None, :], log_kernel)
    return jax.lax.stop_gradient(plan)


def row_normalise(plan):
    """T-hat: each row divided by its sum, so that rows are distributions over the codes; zero rows stay zero.

    Args:
      plan: [n, K] non-negative.

    Returns:
      [n, K] float32.
    """
    plan = plan.astype(jnp.float32)
    sums = jnp.sum(plan, axis=-1, keepdims=True)
    return plan / jnp.where(sums > 0, sums, 1.0)


def transport_plan(cost, *, row_marginal=None, solver="ipot", beta=0.5, iterations=None, epsilon=0.05, across=Alone):
    """A transport plan by the named solver, with a uniform marginal over the codes.

    Args:
      cost: [n, K].
      row_marginal: [n] mass of each row, or None for 1/n.
      solver: "ipot" or "sinkhorn".
      beta: IPOT's proximal step; unused by "sinkhorn".
      iterations: steps of the solver; None for its own default (50 for "ipot", 3 for "sinkhorn").
      epsilon: entropic weight of "sinkhorn"; unused by "ipot".
      across: see `ipot`.

    Returns:
      [n, K] float32 plan of mass one (over all devices), no gradient.

    Raises:
      ValueError: an unknown solver.
    """
    if solver == "ipot":
        steps = 50 if iterations is None else iterations
        return ipot(cost, row_marginal, beta=beta, iterations=steps, across=across)
    if solver == "sinkhorn":
        sweeps = 3 if iterations is None else iterations
        return sinkhorn(cost, row_marginal, epsilon=epsilon, iterations=sweeps, across=across)
    raise ValueError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")


def plan_health(plan, *, rows=None, across=Alone):
    """Indicators of collapse or of an unconverged solver in a plan with uniform marginals.

    Args:
      plan: [n, K], these rows of a plan of mass one.
      rows: of the whole plan, over all devices; None for n.
      across: see `ipot`.

    Returns:
      Of the whole plan, {"assignment_entropy": mean entropy of the row-normalised plan, nats (ln K = undecided, 0 = one
      code each), "codes_used": share of the K codes that are the argmax of at least one row,
      "marginal_error": largest relative deviation of a row or column sum from the uniform marginal}.
    """
    plan = jax.lax.stop_gradient(plan).astype(jnp.float32)
    rows, k = rows or plan.shape[0], plan.shape[1]
    used = across.largest(jnp.zeros(k, jnp.float32).at[jnp.argmax(plan, axis=1)].set(1.0))
    row_error = across.largest(jnp.max(jnp.abs(jnp.sum(plan, axis=1) * rows - 1.0)))
    column_error = jnp.max(jnp.abs(across.total(jnp.sum(plan, axis=0)) * k - 1.0))
    return {
        "assignment_entropy": across.total(jnp.sum(entr(row_normalise(plan)))) / rows,
        "codes_used": jnp.mean(used),
        "marginal_error": jnp.maximum(row_error, column_error),
    }
