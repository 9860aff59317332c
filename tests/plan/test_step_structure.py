"""The structure that makes the step fast: what is computed how often, what is kept in place, what is sent.

All numbers are in `EXPECTED`, for each layer and in units of a device's batch: a change of the step changes them there.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from cbalign.runs.train import task_without_data
from tests.plan.step_structure import SIZES
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
DEVICES, BATCH, QUEUE = 2, 16, SIZES["queue__size"]
PAIRS = BATCH // DEVICES
D, K = SIZES["model__embed_dim"], SIZES["codebook__num_codes"]

EXPECTED = {
    # Batches of images of which a fusion layer computes keys, and as many values: the student's, the teacher's.
    "key_batches": 2,
    # Batches of texts that pass through the first fusion layer, in how many passes.
    "fused_batches": 5,
    "fusion_passes": 3,
    # Batches of texts in the last fusion layer's MLP, counted in tokens of a whole text: [CLS] of true pairs and of two
    # kinds of negatives, two masked tokens of the student and of the teacher.
    "last_layer_batches": 7 / 12,
    # Passes through the image encoder (student, teacher), and through the text encoder (both, and the masked text).
    "image_passes": 2,
    "text_passes": 4,
    # Logits of masked tokens (student, teacher), and of contrast: four terms, the student's and the teacher's.
    "token_logits": 2,
    "contrast_logits": 8,
    # Loops: one for each modality's transport.
    "transport_loops": 2,
    # What is gathered over devices: image and text features, ids.
    "gathered": 3,
}


def structure(*arguments, timeout=600):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
    }
    command = [sys.executable, str(ROOT / "tests/plan/step_structure.py"), *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=timeout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found():
    return structure()


@pytest.fixture(scope="module")
def parameters():
    task = task_without_data(tiny_config(**SIZES))
    return jax.tree.leaves(jax.eval_shape(task.init_params, jax.random.key(0)))


def forward(found, *scopes):
    """Products of the forward pass within all of the scopes: [[left, right, result]]."""
    return [
        shapes
        for scope, *shapes in found["products"]
        if all(name in scope for name in scopes) and "transpose(" not in scope
    ]


def batches(products, length):
    """Rows of texts or images of `length` tokens that linear layers are applied to, in batches of a device."""
    return sum(int(np.prod(left[:-1])) for left, _, _ in products) / (length * PAIRS)


TOKENS, PATCHES = 12, 1 + (32 // 8) ** 2


def keys(found, name, layer):
    return forward(found, f"layer_{layer}", "cross_attention", f"/{name}")


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["key", "value"])
def test_keys_and_values_of_images(found, layer, name):
    assert batches(keys(found, name, layer), PATCHES) == EXPECTED["key_batches"]


def test_fusion_passes(found):
    queries = forward(found, "fusion_encoder", "layer_0", "cross_attention", "/query")
    assert len(queries) == EXPECTED["fusion_passes"]
    assert batches(queries, TOKENS) == EXPECTED["fused_batches"]


def test_the_last_fusion_layer(found):
    products = forward(found, "fusion_encoder", "layer_1", "/mlp", "intermediate")
    assert batches(products, TOKENS) == EXPECTED["last_layer_batches"]


def test_encoders_run_no_oftener_than_needed(found):
    images = forward(found, "image_encoder", "layer_0", "/mlp", "intermediate")
    assert len(images) == EXPECTED["image_passes"] == batches(images, PATCHES)
    texts = forward(found, "text_encoder", "layer_0", "/mlp", "intermediate")
    assert len(texts) == EXPECTED["text_passes"] == batches(texts, TOKENS)


def test_shapes_of_the_logits(found):
    config = tiny_config(**SIZES)
    words = [result for *_, result in forward(found, "masked_token_head", "bpd,vd->bpv")]
    masked = PAIRS * config.mlm.max_predictions
    # The head runs on masked positions alone, never on whole texts.
    assert [int(np.prod(result[:-1])) for result in words] == [masked] * EXPECTED["token_logits"]
    wide = [result for _, *shapes in found["products"] for result in shapes[2:] if result == [PAIRS, BATCH + QUEUE]]
    assert len(wide) == EXPECTED["contrast_logits"]
    # Assignment of the global batch to the codes.
    assert any(result in ([BATCH, K], [PAIRS, K]) for *_, result in found["products"])


def test_the_transports_loops(found):
    turns = [length for _, length in found["loops"] if length == SIZES["codebook__iterations"]]
    assert len(turns) == EXPECTED["transport_loops"]


def test_the_state_is_updated_in_place(found):
    assert found["donated"] == found["state"] > 100


def test_no_double_precision_and_no_call_to_the_host(found):
    assert not {"float64", "int64", "complex128"} & set(found["types"])
    assert not [name for name in found["primitives"] if "callback" in name or "feed" in name]


def test_what_is_sent(found, parameters):
    gathered = sorted(size for name, size, _ in found["transfers"] if name == "all_gather")
    assert gathered == [4 * BATCH, 4 * BATCH * D, 4 * BATCH * D] and len(gathered) == EXPECTED["gathered"]
    summed = sum(size * turns for name, size, turns in found["transfers"] if name.startswith("psum"))
    gradients = 4 * sum(int(np.prod(x.shape)) for x in parameters)
    # Every gradient once; besides, metrics of a few bytes each, and sums of the transport's rows.
    assert gradients <= summed < gradients + 10_000
    assert {name for name, *_ in found["transfers"]} <= {"all_gather", "psum", "psum_invariant", "pmax"}


@pytest.mark.slow
def test_the_compiled_step(parameters):
    found = structure("--compile")
    compiled = found["compiled"]
    assert compiled["aliases"] == found["state"]
    assert not compiled["f64"] and not compiled["callbacks"]
    assert len(compiled["unknown_loops"]) == 2  # of one iteration, see `store_gradient`: twice in the one image layer
    kinds = {c["kind"] for c in compiled["collectives"]}
    assert kinds == {"all-reduce", "all-gather"}
    sent = sum(c["bytes"] * c["count"] for c in compiled["collectives"] if c["kind"] == "all-reduce")
    gradients = 4 * sum(int(np.prod(x.shape)) for x in parameters)
    assert gradients <= sent < gradients + 10_000
