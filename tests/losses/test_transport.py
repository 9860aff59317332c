import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from cbalign.distributed import devices
from cbalign.losses import transport
from tests.peers import transport as peer

plan_health = jax.jit(transport.plan_health)
cosine_cost = jax.jit(transport.cosine_cost)
ipot = jax.jit(transport.ipot, static_argnames=("iterations", "inner_sweeps"))
sinkhorn = jax.jit(transport.sinkhorn, static_argnames="iterations")


def features(n, k, d=16, seed=0):
    r = np.random.default_rng(seed)
    return r.normal(size=(n, d)).astype(np.float32), r.normal(size=(k, d)).astype(np.float32)


def cost_of(n, k, d=16, seed=0):
    return peer.cosine_cost(*features(n, k, d, seed))


def uneven(size, seed):
    w = np.random.default_rng(seed).uniform(0.5, 2.0, size)
    return w / w.sum()


def as32(*arrays):
    return [jnp.asarray(a, jnp.float32) for a in arrays]


def test_cosine_cost():
    z, c = features(6, 9)
    np.testing.assert_allclose(cosine_cost(z, c), peer.cosine_cost(z, c), atol=1e-6)
    np.testing.assert_allclose(cosine_cost(3 * z, 0.1 * c), cosine_cost(z, c), atol=1e-6)
    grads = jax.grad(lambda *a: cosine_cost(*a)[0, 1], (0, 1))(*as32(z, c))
    for side, (g, x, y) in enumerate(((grads[0][0], z[0], c[1]), (grads[1][1], c[1], z[0]))):
        u, v = peer.unit(x), peer.unit(y)
        np.testing.assert_allclose(g, -(v - (u @ v) * u) / np.linalg.norm(x), atol=1e-6, err_msg=str(side))


def test_cost_is_not_computed_at_the_inputs_precision():
    z, c = (jnp.asarray(x, jnp.bfloat16) for x in features(32, 48, d=256))
    exact = peer.cosine_cost(np.asarray(z, np.float64), np.asarray(c, np.float64))
    got = cosine_cost(z, c)
    low = 1 - (z / jnp.linalg.norm(z, axis=1, keepdims=True)) @ (c / jnp.linalg.norm(c, axis=1, keepdims=True)).T
    assert got.dtype == jnp.float32
    assert np.abs(got - exact).max() < 1e-6 < 1e-4 < np.abs(np.asarray(low, np.float64) - exact).max()


def test_zero_row_has_a_finite_cost_and_gradient():
    z, c = as32(*features(3, 4))
    z = z.at[1].set(0.0)
    np.testing.assert_allclose(cosine_cost(z, c)[1], np.ones(4))
    assert np.isfinite(jax.grad(lambda z: cosine_cost(z, c).sum())(z)).all()


@pytest.mark.parametrize(
    "beta,iterations,inner,marginals",
    [(0.5, 50, 1, "uniform"), (0.5, 50, 1, "uneven"), (1.0, 10, 1, "uniform"), (0.1, 10, 3, "uneven")],
)
def test_ipot_equals_kernel_form(beta, iterations, inner, marginals):
    cost = cost_of(24, 40)
    a, b = (None, None) if marginals == "uniform" else (uneven(24, 1), uneven(40, 2))
    want = peer.ipot(cost, a, b, beta, iterations, inner)
    got = ipot(cost.astype(np.float32), a, b, beta=beta, iterations=iterations, inner_sweeps=inner)
    np.testing.assert_allclose(got, want, atol=2e-5 / 24)


@pytest.mark.parametrize("n,k", [(64, 64), (48, 200), (200, 48)])
def test_ipot_marginals(n, k):
    # 256 is the width of the joint space; in narrower spaces the float64 reference too leaves 2e-3 on the rows.
    for d in (256, 16):
        cost = cost_of(n, k, d)
        plan = np.asarray(ipot(*as32(cost)), np.float64)
        assert plan.min() >= 0
        np.testing.assert_allclose(plan.sum(0) * k, 1.0, atol=2e-5)
        np.testing.assert_allclose(plan.sum(1), peer.ipot(cost).sum(1), atol=5e-5 / n)
        if d == 256:
            np.testing.assert_allclose(plan.sum(1) * n, 1.0, atol=2e-3)


def test_ipot_approaches_the_exact_optimum():
    cost = cost_of(64, 64)
    rows, columns = linear_sum_assignment(cost)
    best = cost[rows, columns].mean()
    assert abs(np.sum(ot.emd(np.full(64, 1 / 64), np.full(64, 1 / 64), cost) * cost) - best) < 1e-9
    gaps = [float(np.sum(ipot(*as32(cost), iterations=n) * cost)) / best - 1 for n in (50, 400, 2000)]
    assert gaps[0] < 0.03 and gaps[1] < 3e-3 and gaps[2] < 1e-3


def test_ipot_close_to_exact_for_uneven_marginals():
    cost, a, b = cost_of(30, 50), uneven(30, 3), uneven(50, 4)
    best = np.sum(ot.emd(a, b, cost) * cost)
    got = ipot(cost.astype(np.float32), a, b, iterations=1000)
    assert abs(np.sum(got * cost) / best - 1) < 2e-3


@pytest.mark.parametrize("solver", [ipot, sinkhorn])
def test_zero_marginals_equal_the_smaller_problem(solver):
    cost, a, b = cost_of(12, 20).astype(np.float32), uneven(12, 5), uneven(20, 6)
    a[[0, 7]] = 0
    b[[3, 4, 19]] = 0
    a, b = a / a.sum(), b / b.sum()
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    want = np.zeros((12, 20))
    want[np.ix_(rows, columns)] = solver(cost[np.ix_(rows, columns)], a[rows], b[columns])
    np.testing.assert_allclose(solver(cost, a, b), want, atol=1e-6)
    if solver is ipot:
        small = peer.ipot(cost[np.ix_(rows, columns)], a[rows], b[columns])
        np.testing.assert_allclose(want[np.ix_(rows, columns)], small, atol=3e-6)


@pytest.mark.parametrize("solver", [ipot, sinkhorn])
def test_large_costs_stay_finite(solver):
    cost = cost_of(32, 48) * 100
    plan = np.asarray(solver(*as32(cost)))
    assert np.isfinite(plan).all()
    np.testing.assert_allclose(plan.sum(), 1.0, atol=1e-2)


def extreme(name):
    """Costs of features as they may come out of training."""
    z, c = features(48, 64)
    z, c = {
        "collapsed": (np.broadcast_to(z[:1], z.shape) + 1e-6 * z, c),
        "identical": (np.broadcast_to(z[:1], z.shape), np.broadcast_to(c[:1], c.shape)),
        "one code near": (np.abs(z), np.concatenate([np.abs(c[:1]), -np.abs(c[1:])])),
        "two clusters": (np.where(np.arange(48)[:, None] % 3, z[:1], -z[:1]), np.where(c[:, :1] > 0, z[:1], -z[:1])),
        "few rows": (z[:3], features(3, 700)[1]),
        "one row": (z[:1], c),
        "few codes": (features(700, 3)[0], c[:3]),
    }[name]
    return peer.cosine_cost(z, c)


EXTREMES = ("collapsed", "identical", "one code near", "two clusters", "few rows", "one row", "few codes")


@pytest.mark.parametrize("beta", [0.5, 20.0, 0.05, 0.002])
@pytest.mark.parametrize("name", EXTREMES)
def test_ipot_at_extremes(name, beta):
    cost = extreme(name)
    want = peer.ipot_by_logarithms(cost, beta=beta)
    got = ipot(*as32(cost), beta=beta)
    assert np.isfinite(got).all()
    # Float32 leaves an error of half a unit in the last place of 50 cost / beta in the exponent.
    tolerance = 2e-5 + 2e-7 * 50 * 2 / beta
    np.testing.assert_allclose(got, want, atol=tolerance * want.max())


@pytest.mark.parametrize("epsilon", [0.05, 5.0, 0.004])
@pytest.mark.parametrize("name", EXTREMES)
def test_sinkhorn_at_extremes(name, epsilon):
    cost = extreme(name)
    got = sinkhorn(*as32(cost), epsilon=epsilon)
    n, f = len(cost), np.zeros(len(cost))
    for _ in range(3):
        g = -np.log(cost.shape[1]) - logsumexp(f[:, None] - cost / epsilon, axis=0)
        f = -np.log(n) - logsumexp(g[None, :] - cost / epsilon, axis=1)
    want = np.exp(f[:, None] + g[None, :] - cost / epsilon)
    np.testing.assert_allclose(got, want, atol=(3e-7 + 2e-7 * 2 / epsilon) / n)


@pytest.mark.parametrize("solver,scale", [(transport.ipot, "beta"), (transport.sinkhorn, "epsilon")])
def test_logarithms_are_for_extremes_alone(monkeypatch, solver, scale):
    """Without them ordinary plans are the same, and those that underflow are lost."""
    cost = jnp.asarray(cost_of(24, 40), jnp.float32)
    ordinary, extreme = jax.jit(lambda c: (solver(c), solver(c, **{scale: 1e-3})))(cost)
    assert np.isfinite(extreme).all()
    monkeypatch.setattr(transport, "_column_log_sums", lambda exponents, across: jnp.full(40, jnp.nan))
    again, lost = jax.jit(lambda c: (solver(c), solver(c, **{scale: 1e-3})))(cost)
    np.testing.assert_array_equal(again, ordinary)
    assert np.isnan(lost).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize(
    "solver,regularisation", [(transport.ipot, ("beta", 0.5)), (transport.sinkhorn, ("epsilon", 0.05))]
)
def test_rows_spread_over_devices(solver, regularisation, scale):
    """Four parts of the rows, mapped over the axis of the devices: the whole problem's plan, and its health."""
    name, value = regularisation
    # An argument of the programs, so that both scales share them.
    value = np.float32(value * scale)
    cost, a = cost_of(24, 40).astype(np.float32), uneven(24, 1).astype(np.float32)
    a[17] = 0.0
    whole = jax.jit(lambda c, a, value: solver(c, a / a.sum(), **{name: value}))(cost, a, value)

    def part(cost, a, value):
        plan = solver(cost, a / devices.total(a.sum()), **{name: value}, across=devices)
        return plan, transport.plan_health(plan, rows=24, across=devices)

    mapped = jax.jit(jax.vmap(part, in_axes=(0, 0, None), axis_name=devices.AXIS))
    parts = mapped(cost.reshape(4, 6, 40), a.reshape(4, 6), value)
    np.testing.assert_allclose(parts[0].reshape(24, 40), whole, atol=(1e-6 + 1e-7 / scale) / 24)
    for name, value in plan_health(whole).items():
        np.testing.assert_allclose(parts[1][name], np.full(4, value), rtol=2e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("solver", [ipot, sinkhorn])
def test_plan_is_a_constant_and_jit_equals_eager(solver):
    z, c = as32(*features(10, 14))
    grad = jax.grad(lambda c: jnp.sum(solver(cosine_cost(z, c)) ** 2))(c)
    np.testing.assert_array_equal(grad, 0.0)
    cost = cosine_cost(z, c)
    with jax.disable_jit():
        eager = solver(cost)
    np.testing.assert_allclose(solver(cost), eager, atol=3e-7)
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_allclose(solver(cost[order]), np.asarray(eager)[order], atol=3e-7)


@pytest.mark.parametrize("epsilon,iterations", [(0.05, 3), (0.03, 1), (0.2, 10)])
def test_sinkhorn_equals_swav(epsilon, iterations):
    cost = cost_of(32, 48)
    got = sinkhorn(*as32(cost), epsilon=epsilon, iterations=iterations)
    np.testing.assert_allclose(got * 32, peer.swav_sinkhorn(1 - cost, epsilon, iterations), atol=2e-5)
    np.testing.assert_allclose(np.asarray(got, np.float64).sum(1) * 32, 1.0, atol=1e-5)


def test_converged_sinkhorn_equals_pot_and_ott():
    cost, a, b = cost_of(20, 30), uneven(20, 7), uneven(30, 8)
    got = sinkhorn(cost.astype(np.float32), a, b, epsilon=0.1, iterations=500)
    np.testing.assert_allclose(got, ot.sinkhorn(a, b, cost, reg=0.1, stopThr=1e-12, numItermax=5000), atol=1e-6)
    problem = linear_problem.LinearProblem(geometry.Geometry(jnp.asarray(cost), epsilon=0.1), *as32(a, b))
    with jax.numpy_rank_promotion("allow"):
        out = ott_sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=5000)(problem)
    np.testing.assert_allclose(got, out.matrix, atol=1e-6)


def test_row_normalise():
    got = transport.row_normalise(jnp.array([[1.0, 3.0], [0.0, 0.0], [1e-20, 1e-20]]))
    np.testing.assert_allclose(got, [[0.25, 0.75], [0.0, 0.0], [0.5, 0.5]])


def test_dispatch():
    cost = cost_of(8, 12)
    (c,) = as32(cost)
    np.testing.assert_allclose(
        transport.transport_plan(c, solver="ipot", beta=1.0, iterations=7),
        peer.ipot(cost, beta=1.0, iterations=7),
        atol=1e-6,
    )
    np.testing.assert_allclose(transport.transport_plan(c, solver="ipot"), peer.ipot(cost), atol=3e-6)
    np.testing.assert_allclose(
        transport.transport_plan(c, solver="sinkhorn", epsilon=0.1) * 8, peer.swav_sinkhorn(1 - cost, 0.1, 3), atol=1e-5
    )
    with pytest.raises(ValueError, match="ipot, sinkhorn"):
        transport.transport_plan(c, solver="emd")


def test_bad_arguments():
    with pytest.raises(ValueError, match="row_marginal"):
        transport.ipot(jnp.ones((3, 4)), jnp.ones(4))
    with pytest.raises(ValueError, match="iterations"):
        transport.sinkhorn(jnp.ones((3, 4)), iterations=0)
    with pytest.raises(ValueError, match=r"\[n, K\]"):
        transport.ipot(jnp.ones(3))


def test_plan_health():
    r = np.random.default_rng(1)
    for plan in (r.dirichlet(np.ones(60)).reshape(6, 10), peer.ipot(cost_of(12, 9))):
        got = plan_health(*as32(plan))
        for name, value in peer.health(plan).items():
            np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    collapsed = plan_health(jnp.array([[0.5, 0.0], [0.5, 0.0]]))
    assert {k: float(v) for k, v in collapsed.items()} == {
        "assignment_entropy": 0.0,
        "codes_used": 0.5,
        "marginal_error": 1.0,
    }
