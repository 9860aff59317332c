"""Schedules against written tables, groups, and AdamW against torch."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from cbalign.errors import UserError
from cbalign.training.optimizer import adamw, albef_staircase, alpha_ramp, group_labels, group_table, warmup_cosine

PARAMS = {
    "codebook": {"codes": np.ones((3, 2), np.float32)},
    "temperature": {"value": np.float32(0.07)},
    "text_encoder": {
        "norm": {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)},
        "dense": {"kernel": np.full((2, 2), 0.5, np.float32), "bias": np.zeros(2, np.float32)},
    },
}
GROUPS = (("temperature/.*", 0.1, 0.0), ("codebook/.*", 1.0, 0.0), (".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))


def test_albef_staircase_follows_the_published_table():
    schedule = albef_staircase(peak=1e-4, final=1e-5, start=1e-5, warmup_steps=2000, steps_per_epoch=10000, epochs=30)
    # Read off the optimizer that ALBEF's `scheduler.create_scheduler` drives in the loop of its `Pretrain.py`, with the
    # settings of `configs/Pretrain.yaml` and 10,000 iterations an epoch.
    in_epoch_0 = {0: 1e-5, 100: 1e-5, 101: 1.45e-5, 1050: 5.5e-5, 2000: 9.55e-5, 2001: 1e-4, 9999: 1e-4}
    # Epoch -> rate, constant within the epoch.
    by_epoch = {1: 9.975e-5, 5: 9.40e-5, 10: 7.75e-5, 15: 5.5e-5, 20: 3.25e-5, 25: 1.60e-5, 29: 1.025e-5}
    for step, rate in in_epoch_0.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
    for epoch, rate in by_epoch.items():
        for offset in (0, 9999):
            assert float(schedule(epoch * 10000 + offset)) == pytest.approx(rate, rel=3e-3)


def test_albef_staircase_of_the_vqa_table():
    schedule = albef_staircase(peak=2e-5, final=1e-6, start=1e-5, warmup_steps=400, steps_per_epoch=1000, epochs=8)
    expected = [1.93, 1.72, 1.41, 1.05, 0.686, 0.378, 0.172]
    assert [float(schedule(1000 * e)) * 1e5 for e in range(1, 8)] == pytest.approx(expected, abs=6e-3)


@pytest.mark.parametrize(
    "steps_per_epoch, epochs, peak, final, warmup_steps, mean",
    [
        # Means over all iterations of the rates that ALBEF's own scheduler gives, `configs/NAME.yaml`, with as many
        # iterations an epoch as stand first.
        pytest.param(10000, 30, 1e-4, 1e-5, 2000, 5.618470e-05, id="Pretrain"),
        pytest.param(2213, 5, 1e-5, 1e-6, 100, 6.400000e-06, id="Retrieval_coco"),
        pytest.param(566, 10, 1e-5, 1e-6, 100, 5.950000e-06, id="Retrieval_flickr"),
        pytest.param(5000, 8, 2e-5, 1e-6, 400, 1.162475e-05, id="VQA"),
        pytest.param(10000, 1, 2e-5, 1e-5, 100, 1.989900e-05, id="NLVR_pretrain"),
        pytest.param(674, 10, 2e-5, 1e-6, 100, 1.130015e-05, id="NLVR"),
        pytest.param(2068, 5, 2e-5, 1e-6, 100, 1.230232e-05, id="VE"),
    ],
)
def test_the_mean_rate_of_a_run_is_albefs(steps_per_epoch, epochs, peak, final, warmup_steps, mean):
    schedule = albef_staircase(
        peak=peak, final=final, start=1e-5, warmup_steps=warmup_steps, steps_per_epoch=steps_per_epoch, epochs=epochs
    )
    rates = np.asarray(schedule(np.arange(steps_per_epoch * epochs)), np.float64)
    assert rates.mean() == pytest.approx(mean, rel=2e-6)


def test_warmup_cosine_is_the_formula():
    schedule = warmup_cosine(peak=1e-3, final=1e-5, start=0.0, warmup_steps=10, steps=110)
    for step in (0, 5, 10, 60, 85, 110):
        expected = 1e-3 * step / 10 if step < 10 else 1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * (step - 10) / 100)) / 2
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_alpha_ramp():
    ramp = alpha_ramp(alpha=0.4, ramp_steps=100)
    assert [round(float(ramp(s)), 6) for s in (0, 25, 100, 5000)] == [0.0, 0.1, 0.4, 0.4]
    assert float(alpha_ramp(alpha=0.4, ramp_steps=0)(0)) == pytest.approx(0.4)


def test_every_parameter_is_in_exactly_one_group():
    labels = group_labels(PARAMS, GROUPS)
    assert labels == {
        "codebook": {"codes": 1},
        "temperature": {"value": 0},
        "text_encoder": {"norm": {"scale": 2, "bias": 2}, "dense": {"kernel": 3, "bias": 2}},
    }
    assert "temperature/.*" in group_table(PARAMS, GROUPS) and "6" in group_table(PARAMS, GROUPS)


def test_uncovered_and_empty_groups_are_named():
    with pytest.raises(UserError, match="text_encoder/dense/bias"):
        group_labels(PARAMS, GROUPS[:2])
    with pytest.raises(UserError, match="vision/.*"):
        group_labels(PARAMS, (("vision/.*", 1.0, 1.0), (".*", 1.0, 1.0)))


def test_adamw_equals_torch_with_groups_and_clipping():
    rng = np.random.default_rng(0)
    params = {
        k: jnp.asarray(v)
        for k, v in {"w/kernel": rng.normal(size=(4, 3)).astype("f"), "w/bias": rng.normal(size=3).astype("f")}.items()
    }
    groups = ((".*bias", 0.5, 0.0), (".*", 1.0, 1.0))
    optimizer = adamw(
        params, lambda step: 0.01, groups=groups, weight_decay=0.1, b1=0.9, b2=0.98, eps=1e-8, clip_norm=1.0
    )
    state = optimizer.init(params)
    peer = {k: torch.nn.Parameter(torch.tensor(np.asarray(v))) for k, v in params.items()}
    torch_optimizer = torch.optim.AdamW(
        [
            {"params": [peer["w/kernel"]], "lr": 0.01, "weight_decay": 0.1},
            {"params": [peer["w/bias"]], "lr": 0.005, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        eps=1e-8,
    )
    for _ in range(5):
        gradients = {k: rng.normal(size=v.shape).astype("f") for k, v in params.items()}
        updates, state = optimizer.update({k: jnp.asarray(g) for k, g in gradients.items()}, state, params)
        params = optax.apply_updates(params, updates)
        for name, parameter in peer.items():
            parameter.grad = torch.tensor(gradients[name])
        torch.nn.utils.clip_grad_norm_(list(peer.values()), 1.0)
        torch_optimizer.step()
    for name in params:
        np.testing.assert_allclose(params[name], peer[name].detach().numpy(), rtol=2e-5, atol=1e-6)
