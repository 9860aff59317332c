"""Losses in numpy, float64, written from their formulas with loops where that is plainer."""

import numpy as np

from tests.peers.transport import cosine_cost, unit


def softmax(x):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(logits, targets):
    """-sum_k p_k log q_k over the last axis; classes of zero target are skipped."""
    q, p = softmax(logits), np.asarray(targets, np.float64)
    out = np.zeros(p.shape[:-1])
    for index in np.ndindex(*p.shape):
        if p[index] > 0:
            out[index[:-1]] -= p[index] * np.log(q[index])
    return out


def code_losses(sv, st, tv, tt, codes, plan_v, plan_t, targets_v, targets_t, tau):
    def predict(z, targets):
        return cross_entropy(unit(z) @ unit(codes).T / tau, targets).mean()

    ot = (plan_v * cosine_cost(tv, codes)).sum() + (plan_t * cosine_cost(tt, codes)).sum()
    return {"ot": ot, "i2p": predict(sv, targets_t), "t2p": predict(st, targets_v)}


def contrast(query, teacher_query, keys, hard, tau, alpha, valid=None):
    """mean_i H(alpha softmax(teacher . keys / tau) + (1 - alpha) hard, softmax(query . keys / tau)) over valid keys."""
    kept = np.arange(len(keys)) if valid is None else np.flatnonzero(valid)
    keys = np.asarray(keys, np.float64)[kept]
    y = alpha * softmax(teacher_query @ keys.T / tau) + (1 - alpha) * np.asarray(hard)[:, kept]
    return cross_entropy(query @ keys.T / tau, y).mean()


def mlm(logits, labels, weights, teacher_logits, alpha, total=None):
    hard = soft = correct = 0.0
    for i, j in np.ndindex(*labels.shape):
        q, p = softmax(logits[i, j]), softmax(teacher_logits[i, j])
        hard -= weights[i, j] * np.log(q[labels[i, j]])
        soft -= weights[i, j] * (p * np.log(q)).sum()
        correct += weights[i, j] * (np.argmax(logits[i, j]) == labels[i, j])
    total = weights.sum() if total is None else total
    hard, soft = hard / total, soft / total
    mixed = (1 - alpha) * hard + alpha * soft
    return {"mlm": mixed, "mlm_hard": hard, "mlm_soft": soft, "mlm_accuracy": correct / total}
