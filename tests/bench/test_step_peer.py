"""The training step and its peer in PyTorch are the same computation: losses, updates, teacher and queues are equal."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cbalign.__main__ import main
from cbalign.bench import step_peer
from cbalign.bench.peer_problem import check_peer, describe, random_draws
from cbalign.bench.step import random_batch
from cbalign.config import load_config
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.runs.train import bind_step, state_factory, task_without_data
from tests.peers.codis import Codis
from tests.tiny import tiny_config

STEPS = 3
LOSSES = ("i2t", "t2i", "i2i", "t2t", "ica", "ot", "i2p", "t2p", "code", "itm", "mlm", "mlm_hard", "mlm_soft", "loss")
CONFIG = dict(
    contrast__alpha_ramp_steps=2,
    contrast__joint_positives=True,
    data__second_view=True,
    itm__group_size=8,
    model__fusion_depth=2,
    model__init_std=0.2,
    optimizer__clip_norm=1.0,
    codebook__iterations=50,
)


@pytest.fixture(scope="module")
def start():
    """(task, state before the first step on the host, for steps donate it, optimizer, learning rate)."""
    task = task_without_data(tiny_config(**CONFIG))
    make_state, optimizer, learning_rate = state_factory(task, task.config, steps_per_epoch=10)
    return task, jax.tree.map(np.array, make_state()), optimizer, learning_rate


@pytest.mark.slow
def test_losses_of_several_steps_are_the_peers(start):
    task, state, optimizer, learning_rate = start
    config = task.config
    step = devices.map_step(bind_step(task, task.config, optimizer=optimizer, learning_rate=learning_rate))
    # A teacher that is not the student, so that none of the two can stand for the other.
    state = state.replace(teacher=jax.tree.map(lambda x: 0.8 * x, state.teacher))
    peer = Codis(describe(task, state, learning_rate))
    state = devices.replicate(state)
    for number in range(STEPS):
        batch = random_batch(task, seed=number)
        batch["id"] = batch["id"] // 2 + 3 * number  # some pairs share an image, some are in the queue
        batch["text"][::3, 7:] = 0
        masked, noise = random_draws(task, seed=config.seed, step=number, batch=batch)
        expected = peer.step(batch, masked=masked, noise=noise)
        state, metrics = step(state, devices.feed(batch))
        ours = {name: float(x) for name, x in devices.fetch(metrics).items()}
        for name in LOSSES:
            assert ours[name] == pytest.approx(expected[name], abs=1e-4, rel=0), (number, name)
    ours, theirs = describe(task, devices.fetch(state), learning_rate), peer.model.state_dict()
    assert int(theirs["queue_ptr"]) == STEPS * config.train.batch_size
    assert np.array_equal(ours["queue_ids"], peer.queue_ids.numpy())
    for name in ("image_queue", "text_queue"):
        np.testing.assert_allclose(ours["state"][name], theirs[name].numpy(), atol=1e-4)
    # A key's bias shifts all scores of a query alike: its gradient is rounding, which Adam scales up to whole steps.
    for name in ("temp", "itm_head.weight", "visual_encoder.patch_embed.proj.weight", "visual_encoder_m.pos_embed"):
        np.testing.assert_allclose(ours["state"][name], theirs[name].numpy(), atol=1e-4, err_msg=name)
    np.testing.assert_allclose(ours["codes"], peer.codes.detach().numpy(), atol=1e-4)


@pytest.mark.slow
def test_the_peers_own_draws_are_of_the_right_kind(start):
    task, state, _, learning_rate = start
    peer = Codis(describe(task, state, learning_rate))
    ids = np.random.default_rng(0).integers(5, 200, (2000, 12))
    ids[:, 0], ids[:, 10], ids[:, 11] = 2, 3, 0
    masked = {name: x.numpy() for name, x in peer.mask(torch.as_tensor(ids)).items()}
    changed, used = masked["ids"] != ids, masked["weights"] > 0
    rows = np.arange(len(ids))[:, None]
    assert np.array_equal(masked["labels"][used], ids[rows, masked["positions"]][used])
    assert not changed[:, [0, 10, 11]].any() and changed.sum() <= used.sum()
    assert (masked["ids"] == 4).sum() / used.sum() == pytest.approx(0.8, abs=0.05)
    # Of nine tokens, each chosen with probability 0.15, two at most: 0.15 * 9 less what is over two.
    chosen = np.random.default_rng(1).binomial(9, 0.15, 100_000)
    assert used.sum(1).mean() == pytest.approx(np.minimum(chosen, 2).mean(), abs=0.05)


@pytest.mark.parametrize(
    "override, named",
    [
        ("codebook.solver=sinkhorn", "codebook.solver=ipot"),
        ("codebook.embed=True", "codebook.embed=False"),
        ("loss_weights.mlm=0.0", "loss_weights.mlm"),
    ],
)
def test_what_the_peer_does_not_compute_is_named(override, named):
    with pytest.raises(UserError, match=named):
        check_peer(task_without_data(load_config("emoji_scratch", [override])))


@pytest.mark.slow
@pytest.mark.long
def test_the_command_takes_turns_and_starts_from_equal_losses(capfd, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # to compile takes minutes, and here that is to be told
    changes = ("image_width=32", "text_width=32", "image_depth=1", "text_depth=1", "embed_dim=32")
    command = ["bench", "step", "--config=configs/emoji_scratch.py", "--peer=torch", "--repeats=2"]
    assert main([*command, *(f"--config.model.{change}" for change in changes)]) == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["first_loss"] > 10 and abs(found["eager_first_loss_difference"]) < 1e-4
    assert found["compiled_skipped"] == "TORCHDYNAMO_DISABLE is set" and "compiled_ratio" not in found
    assert found["eager_ratio"] > 0 and found["torch"] == torch.__version__
    # PyTorch alone takes more than that; neither process holds the other's library.
    assert 1e8 < found["eager_peer_peak_bytes"] < 3e9 and 1e8 < found["eager_step_peak_bytes"] < 3e9


def test_outside_a_checkout_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step_peer, "__file__", str(tmp_path / "cbalign" / "bench" / "step_peer.py"))
    assert main(["bench", "step", "--config=configs/emoji_scratch.py", "--peer=torch"]) == 2
    assert "needs a checkout" in capsys.readouterr().err


def test_the_flag_is_for_the_step(capsys):
    assert main(["bench", "input", "--peer=torch"]) == 2
    assert "--peer=torch" in capsys.readouterr().err
