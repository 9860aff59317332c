"""Retrieval fine-tuning against the reference's formulas in numpy."""

import jax
import numpy as np
import pytest

from cbalign.bench.step import random_batch
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.runs.train import bind_step, state_factory
from cbalign.tasks.retrieval import Retrieval
from tests.tiny import tiny_config

TOKENS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": 200}
IDS = np.array([7, 7, 3, 4, 5, 5, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17], np.int32)
QUEUED = np.array([7, 5, 16, 100, -1, -1], np.int32)


def config(**changes):
    return tiny_config(
        **{
            "task": "retrieval",
            "loss_weights__mlm": 0.0,
            "contrast__joint_positives": True,
            "contrast__terms": ("i2t", "t2i"),
            "contrast__alpha_ramp_steps": 0,
            "data__second_view": False,
            "teacher__momentum": 1.0,
            **changes,
        }
    )


def one_step(c):
    """(task, state before, state after, metrics, batch) of a step; the teacher differs, the queue holds ids."""
    task = Retrieval(c, tokens=TOKENS)
    build, optimizer, schedule = state_factory(task, c, steps_per_epoch=10)
    before = build()
    queue_ids = np.full(c.queue.size, -1, np.int32)
    queue_ids[: len(QUEUED)] = QUEUED
    before = before.replace(
        teacher=task.teacher_params(task.init_params(jax.random.key(99))), queue=before.queue.replace(ids=queue_ids)
    )
    batch = {**random_batch(task), "id": IDS}
    step = devices.map_step(bind_step(task, c, optimizer=optimizer, learning_rate=schedule), donate=False)
    after, metrics = step(devices.replicate(before), devices.feed(batch))
    return task, before, devices.fetch(after), devices.fetch(metrics), batch


@pytest.fixture(scope="module")
def stepped():
    """Without the matching loss, which takes most of the compilation; the slow test below has it."""
    return one_step(config(loss_weights__itm=0.0))


def softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def test_contrast_is_the_references(stepped):
    # model_retrieval.py: sim_targets = alpha * softmax(teacher) + (1 - alpha) * pos_idx / pos_idx.sum(1), and the mean
    # of both directions' cross-entropies.
    task, before, _, metrics, batch = stepped

    @jax.jit
    def encoded(params):
        return [
            task.model.apply({"params": params}, batch[name], method=f"encode_{name}")["feature"]
            for name in ("image", "text")
        ]

    def features(params):
        return [np.asarray(feature, np.float64) for feature in encoded(params)]

    image, text = features(before.params)
    teacher_image, teacher_text = features(before.teacher)
    all_ids = np.concatenate([IDS, np.asarray(before.queue.ids)])
    positives = (IDS[:, None] == all_ids[None, :]) * 1.0
    assert positives[0].sum() == 3 and positives[4].sum() == 4  # two or three in the batch, one in the queue
    targets, tau, alpha, losses = positives / positives.sum(1, keepdims=True), 0.07, 0.4, []
    for query, teacher, keys, queue in (
        (image, teacher_image, teacher_text, before.queue.text),
        (text, teacher_text, teacher_image, before.queue.image),
    ):
        keys = np.concatenate([keys, np.asarray(queue, np.float64)])
        soft = alpha * softmax(teacher @ keys.T / tau) + (1 - alpha) * targets
        losses.append(-np.mean(np.sum(soft * np.log(softmax(query @ keys.T / tau)), axis=1)))
    np.testing.assert_allclose([metrics["i2t"], metrics["t2i"]], losses, rtol=1e-5)
    assert metrics["ica"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["ica"] + metrics["code"], rel=1e-5)


def test_ids_of_the_batch_enter_the_queue(stepped):
    _, before, after, _, _ = stepped
    np.testing.assert_array_equal(after.queue.ids[:16], IDS)
    np.testing.assert_array_equal(after.queue.ids[16:], before.queue.ids[16:])


@pytest.mark.slow
def test_codebook_and_masked_token_head_can_be_left_as_they_are(stepped):
    groups = (("(masked_token_head|codebook)/.*", 0.0, 0.0), (".*", 1.0, 1.0))
    task, before, after, metrics, _ = one_step(
        config(optimizer__groups=groups, optimizer__weight_decay=0.5, loss_weights__code=0.0)
    )
    for module in ("masked_token_head", "codebook"):
        jax.tree.map(np.testing.assert_array_equal, after.params[module], before.params[module])
    for module in ("fusion_encoder", "matching_head", "image_encoder"):
        assert any(
            np.any(a != b)
            for a, b in zip(jax.tree.leaves(after.params[module]), jax.tree.leaves(before.params[module]), strict=True)
        )
    assert metrics["loss"] == pytest.approx(metrics["ica"] + metrics["itm"], rel=1e-5)
    assert "code" not in metrics and metrics["ica"] == pytest.approx(stepped[3]["ica"], rel=1e-5)
    assert set(task.chance_levels()) == {"i2t", "t2i", "itm", "itm_accuracy"}
    assert set(stepped[0].chance_levels()) == {"i2t", "t2i", "i2p", "t2p"}
    assert task.chance_levels()["i2t"] == pytest.approx(np.log(16 + 64))


def test_masked_tokens_are_refused():
    with pytest.raises(UserError, match="retrieval has no masked tokens"):
        Retrieval.check(config(loss_weights__mlm=1.0))
