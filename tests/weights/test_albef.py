"""ALBEF's and TCL's layout in and out: exact round trips, strict loading there, features equal to theirs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cbalign.errors import UserError
from cbalign.models.alignment import TEACHER_MODULES
from cbalign.weights import key_tables
from cbalign.weights.checkpoint_files import read_checkpoint
from cbalign.weights.convert import match_checkpoint, param_shapes
from cbalign.weights.export import albef_state, export_albef
from tests.models.test_positions import albefs
from tests.peers.albef import Albef
from tests.peers.randomise import randomise
from tests.weights.models import QUEUE, albef_checkpoint, as_arrays, as_tree, assert_same, small_model


def match(tensors, model=None, **options):
    return match_checkpoint("albef", tensors, model or small_model(), **{"queue_size": QUEUE, **options})


def own_arrays(model, seed=0):
    """Random weights of a whole state here: student, teacher, codebook and queues with ids."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in param_shapes(model).items()}
    teacher = {
        name.replace("params/", "teacher/"): rng.normal(size=array.shape).astype(np.float32)
        for name, array in params.items()
        if name.split("/")[1] in TEACHER_MODULES
    }
    queue = {
        f"queue/{name}": rng.normal(size=(QUEUE, model.embed_dim)).astype(np.float32) for name in ("image", "text")
    }
    ids = np.asarray([5, 0, 2**31 - 1, *[-1] * (QUEUE - 3)], np.int32)
    return {**params, **teacher, **queue, "queue/ids": ids, "queue/pointer": np.asarray(3, np.int32)}


def test_albef_to_ours_to_albef():
    checkpoint = albef_checkpoint()
    matched = match(checkpoint)
    assert matched.initialised == ["params/codebook/codes"] and matched.resolution == 32
    state, beside = albef_state(matched.arrays, small_model())
    assert_same(state, checkpoint)
    assert not beside


def test_finetuned_retrieval_to_ours_to_albef():
    checkpoint = albef_checkpoint(retrieval=True)
    assert not any(".bert." in name or ".cls." in name for name in checkpoint)
    matched = match(checkpoint)
    assert {name.split("/")[1] for name in matched.initialised} == {"codebook", "masked_token_head"}
    np.testing.assert_array_equal(matched.arrays["queue/ids"], [7, 0, 12] + [-1] * (QUEUE - 3))
    state, beside = albef_state(matched.arrays, small_model())
    state |= beside
    assert_same({name.replace(".bert.", "."): array for name, array in state.items()}, checkpoint)


def test_ours_to_albef_to_ours():
    arrays = own_arrays(small_model())
    state, beside = albef_state(arrays, small_model())
    matched = match({**state, **{f"cbalign.{name}": array for name, array in beside.items()}})
    assert_same(matched.arrays, arrays)
    assert not matched.initialised


def test_exported_file_loads_strictly_in_albefs_modules_and_comes_back(tmp_path):
    model = small_model()
    arrays = own_arrays(model)
    path = export_albef(tmp_path / "out", arrays, model, settings={"queue_size": QUEUE})
    loaded = torch.load(path, weights_only=True)
    Albef(model, queue_size=QUEUE).load_state_dict(loaded["model"], strict=True)
    assert loaded["config"]["image_res"] == 32
    assert_same(match(read_checkpoint(path).tensors).arrays, arrays)
    with pytest.raises(UserError, match="is there already"):
        export_albef(tmp_path / "out", arrays, model, settings={})


@pytest.mark.parametrize("size", [32, 48])
def test_image_features_equal_albefs(size):
    """The checkpoint is of 32 pixels; at 48 the reference uses ALBEF's own interpolation."""
    albef = randomise(Albef(small_model(), queue_size=QUEUE), seed=1)
    model = small_model(image_size=size)
    params = as_tree(match(as_arrays(albef), model).arrays, "params/")
    image = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    encode = jax.jit(functools.partial(model.apply, method="encode_image"))
    ours = encode({"params": params}, jnp.asarray(image))["feature"]
    with torch.no_grad():
        positions = albef.visual_encoder.pos_embed
        albef.visual_encoder.pos_embed = torch.nn.Parameter(torch.tensor(albefs(positions.numpy(), size // 8)))
        cls = albef.visual_encoder(torch.tensor(image.transpose(0, 3, 1, 2)))[:, 0]
        theirs = torch.nn.functional.normalize(albef.vision_proj(cls), dim=-1).numpy()
    assert np.max(np.abs(np.asarray(ours) - theirs)) <= 1e-4 * np.max(np.abs(theirs))


def test_teacher_and_queues_may_be_absent():
    checkpoint = {
        name: array for name, array in albef_checkpoint().items() if "_m." not in name and "queue" not in name
    }
    matched = match(checkpoint)
    assert {name.split("/")[0] for name in matched.arrays} == {"params"}


def test_teacher_in_part_is_refused():
    checkpoint = albef_checkpoint()
    del checkpoint["vision_proj_m.bias"]
    with pytest.raises(UserError, match=r"lacks vision_proj_m\.bias, of the \d+ tensors of its teacher"):
        match(checkpoint)


def test_queues_of_another_size_are_left_out_with_a_note():
    matched = match(albef_checkpoint(), queue_size=QUEUE * 2)
    assert not any(name.startswith("queue/") for name in matched.arrays)
    assert {name for name, _ in matched.unused} >= {"image_queue", "text_queue", "queue_ptr"}
    assert "queue.size is 16" in matched.notes[0]


def test_wrapper_for_several_devices_is_unwrapped():
    checkpoint = albef_checkpoint()
    assert_same(match({f"module.{name}": array for name, array in checkpoint.items()}).arrays, match(checkpoint).arrays)


def test_every_parameter_has_one_name_there():
    """The table covers the whole model (student, teacher, queues), each parameter once apart from tied copies."""
    model = small_model()
    table = key_tables.albef_table(image_depth=2, text_depth=2, fusion_depth=2)
    ours = [name for entry in table.entries if not entry.copy for name in entry.ours]
    assert len(ours) == len(set(ours)) and len({entry.theirs for entry in table.entries}) == len(table.entries)
    assert set(ours) == set(own_arrays(model))
