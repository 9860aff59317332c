"""Transport solvers in numpy, float64, transcribed from the kernel-form formulas."""

import numpy as np
from scipy.special import logsumexp


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cosine_cost(x, y):
    return 1.0 - np.einsum("id,jd->ij", unit(x), unit(y))


def ipot(cost, a=None, b=None, beta=0.5, iterations=50, inner=1):
    """IPOT in its kernel form: G = exp(-C / beta), T = 1, sigma = 1 / m; full support only."""
    cost = np.asarray(cost, np.float64)
    n, m = cost.shape
    a = np.full(n, 1 / n) if a is None else a
    b = np.full(m, 1 / m) if b is None else b
    G, T, sigma = np.exp(-cost / beta), np.ones((n, m)), np.full(m, 1 / m)
    for _ in range(iterations):
        Q = G * T
        for _ in range(inner):
            delta = a / (Q @ sigma)
            sigma = b / (Q.T @ delta)
        T = delta[:, None] * Q * sigma[None, :]
    return T


def swav_sinkhorn(scores, epsilon=0.05, iterations=3):
    """SwAV's distributed_sinkhorn on one device: [B, K] scores to [B, K] codes whose rows sum to one."""
    Q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    K, B = Q.shape
    Q /= Q.sum()
    for _ in range(iterations):
        Q /= Q.sum(axis=1, keepdims=True)
        Q /= K
        Q /= Q.sum(axis=0, keepdims=True)
        Q /= B
    return (Q * B).T


def health(plan):
    plan = np.asarray(plan, np.float64)
    n, k = plan.shape
    hat = plan / plan.sum(1, keepdims=True)
    entropy = -sum(p * np.log(p) for p in hat.ravel() if p > 0) / n
    error = max(np.abs(plan.sum(1) - 1 / n).max() * n, np.abs(plan.sum(0) - 1 / k).max() * k)
    return {"assignment_entropy": entropy, "codes_used": len(set(plan.argmax(1))) / k, "marginal_error": error}


def ipot_by_logarithms(cost, a=None, b=None, beta=0.5, iterations=50, inner=1):
    """`ipot` on logarithms of the scalings, for costs at which the kernel underflows even in float64."""
    cost = np.asarray(cost, np.float64)
    n, m = cost.shape
    log_a = np.log(np.full(n, 1 / n) if a is None else a)
    log_b = np.log(np.full(m, 1 / m) if b is None else b)
    log_plan, log_sigma = np.zeros((n, m)), np.full(m, -np.log(m))
    for _ in range(iterations):
        log_q = log_plan - cost / beta
        for _ in range(inner):
            log_delta = log_a - logsumexp(log_q + log_sigma[None, :], axis=1)
            log_sigma = log_b - logsumexp(log_q + log_delta[:, None], axis=0)
        log_plan = log_delta[:, None] + log_q + log_sigma[None, :]
    return np.exp(log_plan)
