"""Re-ranking with a real model: against pairs matched one by one, with bfloat16 storage, in parts, within its memory."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cbalign.evaluation import encoders, reranking
from cbalign.evaluation.metrics import recall
from cbalign.evaluation.retrieval import Functions, evaluate_retrieval
from tests.evaluation.tiny_model import batches, functions, gallery, model_and_params

ROOT = pathlib.Path(__file__).parents[2]
N_IMAGES, N_TEXTS = 9, 14


@pytest.fixture(scope="module")
def tiny():
    return model_and_params()


@pytest.fixture(scope="module")
def bound(tiny):
    return functions(*tiny)


@pytest.fixture(scope="module")
def encoded(tiny):
    """Everything encoded at once, and all pairs matched one by one: {"image", "text": tokens, "ids", "logits"}."""
    model, params = tiny
    images, ids, _, _ = gallery(N_IMAGES, N_TEXTS)
    # Compiled as a whole: one by one, each operation is a program of its own.
    apply = lambda method, *x: jax.jit(lambda *x: model.apply({"params": params}, *x, method=method))(*x)  # noqa: E731
    image, text = apply("encode_image", images)["tokens"], apply("encode_text", ids)["tokens"]
    return {
        "image": np.asarray(image),
        "text": np.asarray(text),
        "ids": ids,
        "logits": matched(model, params, image, text, ids),
    }


def matched(model, params, image, text, ids):
    """Logits [n_i, n_t, 2] of all pairs by plain calls of the model, an image repeated for every text."""

    @jax.jit
    def row(repeated):
        fused = model.apply({"params": params}, text, ids, repeated, method="fuse")
        return model.apply({"params": params}, fused, method="match")

    return np.stack([row(np.repeat(np.asarray(tokens)[None], len(text), axis=0)) for tokens in image])


def match_all(bound, encoded, *, batch_size=16, token_bytes=1 << 30, process=(0, 1)):
    logits = reranking.match_pairs(
        dataclasses.replace(bound, process=process),
        encoded["image"],
        encoded["text"],
        encoded["ids"],
        np.arange(N_IMAGES * N_TEXTS),
        batch_size=batch_size,
        token_bytes=token_bytes,
        progress=lambda *event: None,
    )
    return logits.reshape(N_IMAGES, N_TEXTS, 2)


@pytest.mark.parametrize("batch_size", [1, 5, 16, 1000])
@pytest.mark.parametrize("token_bytes", [0, 1 << 30])
def test_pairs_by_image_are_pairs_one_by_one(bound, encoded, batch_size, token_bytes):
    found = match_all(bound, encoded, batch_size=batch_size, token_bytes=token_bytes)
    np.testing.assert_allclose(found, encoded["logits"], rtol=1e-5, atol=1e-5)
    assert np.std(encoded["logits"]) > 0.1


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_each_device_gets_images_of_its_own(bound, encoded, devices):
    """In as few calls as there are units for: one unit a call, over 8 devices, would be computed 8 times."""
    calls = []

    def match(texts, rows, image_tokens):
        calls.append(image_tokens)
        return bound.match(texts, rows, image_tokens)

    found = match_all(dataclasses.replace(bound, match=match, devices=devices), encoded, batch_size=2)
    np.testing.assert_allclose(found, encoded["logits"], rtol=1e-5, atol=1e-5)
    # Units of 2 pairs, as many a call as there are devices.
    assert {len(tokens) for tokens in calls} == {devices}
    assert len(calls) == -(-N_IMAGES * -(-N_TEXTS // 2) // devices)


def test_all_candidates_give_the_recall_of_the_full_matrix(bound, encoded):
    images, ids, image_ids, text_ids = gallery(N_IMAGES, N_TEXTS)
    result = evaluate_retrieval(
        bound, batches(images, 4), ids, image_ids=image_ids, text_ids=text_ids, top_k=100, batch_size=8
    )
    assert result["itm"] == recall(encoded["logits"][..., 1], image_ids, text_ids)


def evaluated(bound, **options):
    """The result of a gallery whose pairs are all matched, and the dtypes that (images, texts) were kept in."""
    seen = set()

    def match(texts, rows, image_tokens):
        seen.add((str(image_tokens.dtype), str(texts["tokens"].dtype)))
        return bound.match(texts, rows, image_tokens)

    images, ids, image_ids, text_ids = gallery(N_IMAGES, N_TEXTS)
    result = evaluate_retrieval(
        dataclasses.replace(bound, match=match),
        batches(images, 4),
        ids,
        image_ids=image_ids,
        text_ids=text_ids,
        top_k=100,
        batch_size=16,
        **options,
    )
    (dtypes,) = seen
    return result, dtypes


def test_bfloat16_storage_rounds_the_tokens_and_nothing_else(tiny, bound, encoded):
    result, dtypes = evaluated(bound, token_bytes=0)
    assert dtypes == ("bfloat16", "bfloat16")
    # torch's rounding, then everything in float32.
    image, text = (torch.from_numpy(np.array(encoded[name])).bfloat16().float().numpy() for name in ("image", "text"))
    rounded = matched(*tiny, image, text, encoded["ids"])
    _, _, image_ids, text_ids = gallery(N_IMAGES, N_TEXTS)
    assert result["itm"] == recall(rounded[..., 1], image_ids, text_ids)
    # Numbers are off by 2^-9 at most; the logits stay within a few times that of their size.
    change = np.abs(rounded - encoded["logits"]).max()
    assert 0 < change < 2.0**-9 * 8 * np.abs(encoded["logits"]).max()


def test_only_what_is_too_large_is_rounded(bound, encoded):
    limit = encoded["image"].nbytes
    assert limit < encoded["text"].nbytes
    assert evaluated(bound, token_bytes=limit)[1] == ("float32", "bfloat16")
    assert evaluated(bound, token_bytes=limit - 1)[1] == ("bfloat16", "bfloat16")
    assert evaluated(bound, token_bytes=encoded["text"].nbytes)[1] == ("float32", "float32")


def test_processes_share_the_pairs(bound, encoded):
    parts = [match_all(bound, encoded, process=(number, 3)) for number in range(3)]
    assert all(0 < np.mean(part == 0) < 1 for part in parts)
    assert sum((part != 0).any(axis=-1).astype(int) for part in parts).max() == 1
    np.testing.assert_allclose(sum(parts), encoded["logits"], rtol=1e-5, atol=1e-5)


def test_units_hold_every_pair_once():
    rng = np.random.default_rng(0)
    for width in (1, 2, 8):
        pairs = np.unique(rng.integers(0, 6 * 11, 25))
        images, texts, place = reranking._units(pairs, 11, width)
        of_image = np.repeat(images[:, None], width, axis=1).ravel()
        np.testing.assert_array_equal(of_image[place] * 11 + texts.ravel()[place], pairs)
        # No unit more than the images need.
        counts = np.bincount(pairs // 11)
        assert len(images) == np.sum(-(-counts // width)) and np.all(np.diff(place) > 0)
        # What fills a unit up is a pair of its image too.
        assert set((of_image * 11 + texts.ravel()).tolist()) == set(pairs.tolist())


def made_up_functions(n, w, length, v, d):
    """Tokens of any size without a model; constant, so that only what the evaluator keeps takes memory."""
    image, text = np.zeros((1, n, w), np.float32), np.zeros((1, length, v), np.float32)
    unit = np.full((1, d), d**-0.5, np.float32)
    return Functions(
        encode_image=lambda x: {
            "tokens": np.broadcast_to(image, (len(x), n, w)),
            "feature": np.repeat(unit, len(x), 0),
        },
        encode_text=lambda x: {
            "tokens": np.broadcast_to(text, (len(x), length, v)),
            "feature": np.repeat(unit, len(x), 0),
        },
        hold=lambda tokens, ids: None,
        match=lambda texts, rows, images: np.zeros((*rows.shape, 2), np.float32),
        temperature=1.0,
    )


@pytest.mark.parametrize(
    "n_images, n_texts, n, w, length, v, top_k",
    [
        (150, 750, 65, 64, 6, 64, 16),  # tokens take the most, as in COCO
        (400, 2000, 2, 4, 2, 4, 100),  # pairs and matrices do
    ],
)
def test_host_memory_is_what_the_docstring_says(n_images, n_texts, n, w, length, v, top_k):
    d = 16
    tokens = 2 * (n_images * n * w + n_texts * length * v)
    pairs = min(top_k * (n_images + n_texts) + 2 * n_images, n_images * n_texts)
    said = (
        tokens + 4 * d * (n_images + n_texts) + 8 * n_images * n_texts + 64 * pairs + 16 * top_k * (n_images + n_texts)
    )
    ids, image_ids = np.ones((n_texts, length), np.int32), np.arange(n_images)
    images = ((np.zeros((50, 1, 1, 3), np.uint8), 50) for _ in range(n_images // 50))
    tracemalloc.start()
    evaluate_retrieval(
        made_up_functions(n, w, length, v, d),
        images,
        ids,
        image_ids=image_ids,
        text_ids=np.arange(n_texts) % n_images,
        top_k=top_k,
        batch_size=64,
        token_bytes=0,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.6 * said < peak < 1.1 * said + (1 << 20)


def test_device_memory_is_what_the_docstring_says():
    """XLA's own count of what the encoder and the fusion layers need beside their arguments, at a size of its own."""
    size, width, heads, length, each, images, texts = 128, 64, 4, 20, 16, 16, 8
    model, params = model_and_params(
        image_size=size,
        patch_size=8,
        image_width=width,
        image_depth=3,
        image_heads=heads,
        text_width=width,
        text_heads=heads,
        max_positions=length,
        fusion_depth=3,
    )
    compiled = encoders.compiled_methods(model)
    n, held = 1 + (size // 8) ** 2, 100
    pixels = jax.ShapeDtypeStruct((images, size, size, 3), np.uint8)
    encoder = compiled["image"].lower(params, pixels).compile().memory_analysis()
    table = {
        "tokens": jax.ShapeDtypeStruct((held, length, width), jnp.bfloat16),
        "ids": jax.ShapeDtypeStruct((held, length), np.int32),
    }
    rows = jax.ShapeDtypeStruct((texts, each), np.int32)
    tokens = jax.ShapeDtypeStruct((texts, n, width), jnp.bfloat16)
    fusion = compiled["match"].lower(params, table, rows, tokens).compile().memory_analysis()
    b = texts * each
    said = {
        "encoder": 4 * images * (2 * heads * n * n + 4 * n * width),
        "fusion": 4 * b * (3 * heads * length * n + 4 * length * width) + 16 * texts * n * width,
    }
    for name, analysis in (("encoder", encoder), ("fusion", fusion)):
        assert 0.5 * said[name] < analysis.temp_size_in_bytes <= 1.05 * said[name]


def run(tmp_path, devices):
    out = tmp_path / f"{devices}.npz"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    subprocess.run(
        [sys.executable, str(ROOT / "tests/evaluation/devices.py"), str(out)],
        env=environment,
        cwd=ROOT,
        check=True,
        timeout=600,
    )
    return dict(np.load(out))


@pytest.mark.slow
def test_same_figures_on_any_number_of_devices(tmp_path):
    one, *others = (run(tmp_path, devices) for devices in (1, 3, 8))
    assert len(one["recalls"]) == 18 and np.std(one["logits"]) > 0.1
    for devices, other in zip((3, 8), others):
        assert int(other["devices"]) == devices and int(other["spread"]) == devices
        assert not int(other["collectives"])
        np.testing.assert_allclose(other["features"], one["features"], atol=1e-6)
        np.testing.assert_allclose(other["logits"], one["logits"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(other["recalls"], one["recalls"])
        np.testing.assert_array_equal(other["pairs"], 9 * np.arange(5.0) + 1)
