"""Explanations of pairs: attention by word against ALBEF's recipe in PyTorch, scores and codes against the model's."""

import jax
import numpy as np
import pytest
import torch

import cbalign
from cbalign.errors import UserError
from cbalign.inference import TrainedCodebook
from cbalign.inference.explanation import (
    BY_WORD,
    attention_maps,
    default_layer,
    join_pieces,
    masked_word_maps,
    word_maps,
)
from cbalign.inference.image_index import Index
from cbalign.weights.convert import match_checkpoint
from tests.inference.conftest import blotches
from tests.peers import albef_maps
from tests.peers.albef import Albef
from tests.peers.randomise import randomise
from tests.weights.models import QUEUE, as_arrays, as_tree, small_model


@pytest.fixture(scope="module")
def model(tiny_run):
    return cbalign.load(tiny_run)


def pair_of_models(seed, **changes):
    """(our model, its parameters, ALBEF's modules with the same weights, an image, a text of 7 tokens and padding)."""
    small = small_model(fusion_depth=3, dropout=0.1, **changes)
    torch.manual_seed(seed)
    albef = randomise(Albef(small, queue_size=QUEUE), seed=seed)
    params = as_tree(match_checkpoint("albef", as_arrays(albef), small, queue_size=QUEUE).arrays, "params/")
    rng = np.random.default_rng(seed)
    image, ids = rng.normal(size=(1, 32, 32, 3)).astype(np.float32), rng.integers(1, 40, (1, 9)).astype(np.int32)
    ids[0, 7:] = 0
    return small, params, albef.eval(), image, ids


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("layer", [0, 2])
def test_maps_are_those_of_albefs_recipe(layer, remat):
    small, params, albef, image, ids = pair_of_models(layer, remat=remat)
    expected, expected_logits = albef_maps.maps(
        albef,
        torch.tensor(image.transpose(0, 3, 1, 2)),
        torch.tensor(ids, dtype=torch.long),
        heads=small.sizes.text_heads,
        text_depth=small.sizes.text_depth,
        block=small.sizes.text_depth + layer,
    )
    compiled = jax.jit(small.apply, static_argnames="method")
    apply = lambda x, method: compiled({"params": params}, x, method=method)["tokens"]  # noqa: E731
    found, logits = attention_maps(
        small, params, apply(image, "encode_image"), apply(ids, "encode_text"), ids, layer=layer
    )
    assert found.shape == (9, 16) and expected[0].max() > 0 and not np.any(found[7:])
    # No later layer carries the words of the last one to [CLS], which the matching head reads.
    assert np.any(expected[1:]) == (layer < 2)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max(), rtol=1e-4)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_maps_of_masked_words(layer):
    small, params, albef, image, ids = pair_of_models(layer)
    compiled = jax.jit(small.apply, static_argnames="method")
    image_tokens = compiled({"params": params}, image, method="encode_image")["tokens"]
    found = np.asarray(masked_word_maps(small, params, image_tokens, ids, mask_id=4, layer=layer))
    assert found.shape == (9, 16) and not np.any(found[7:])
    pixels, texts = torch.tensor(image.transpose(0, 3, 1, 2)), torch.tensor(ids, dtype=torch.long)
    sizes = small.sizes
    options = dict(heads=sizes.text_heads, text_depth=sizes.text_depth, block=sizes.text_depth + layer)
    for place in range(7):
        expected = albef_maps.masked_word_map(albef, pixels, texts, place, 4, **options)
        assert expected.max() > 0
        np.testing.assert_allclose(found[place], expected, atol=1e-5 * expected.max(), rtol=1e-3)


def test_reading_the_attention_changes_no_parameter_of_the_model():
    image, ids = np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 5), np.int32)
    variables = jax.eval_shape(small_model().init, jax.random.key(0), image, ids)
    assert set(variables) == {"params"}


def test_scores_and_codes_are_the_models_own(model):
    image, sentence = blotches(4), "a large red circle"
    found = model.explain(image, sentence, top=3)
    assert found.image.shape == (32, 32, 3) and found.image.dtype == np.uint8 and found.text == sentence
    assert found.cosine == pytest.approx(float(model.similarity(image, sentence)[0, 0]), abs=1e-5)
    assert found.match == pytest.approx(float(model.match(image, sentence)[0, 0]), abs=1e-5)
    for side, probabilities in (
        (found.image_codes, model.codes(images=image)[0]),
        (found.text_codes, model.codes(texts=sentence)[0]),
    ):
        assert side.codes.tolist() == np.argsort(-probabilities)[:3].tolist()
        np.testing.assert_allclose(side.probabilities, np.sort(probabilities)[::-1][:3], rtol=1e-4)
    assert found.words == sentence.split() and found.tokens[0] == "[CLS]"
    assert found.token_maps.shape == (len(found.tokens), 4, 4) and found.word_maps.shape == (4, 4, 4)
    assert np.all(found.token_maps >= 0) and found.token_maps[0].max() > 0 and found.word_maps.max() > 0
    # The only fusion layer is the last one.
    assert found.layer == 0 and found.notes == () and found.maps_by == BY_WORD


def test_words_of_pieces():
    words, places = join_pieces(["[CLS]", "a", "tri", "##ang", "##le", "-", "##x"])
    assert words == ["a", "triangle", "-x"] and places == [[1], [2, 3, 4], [5, 6]]
    maps = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((7, 2, 2), np.float32)
    assert word_maps(maps, places)[:, 0, 0].tolist() == [1, 3, 5.5]
    assert join_pieces(["[CLS]"]) == ([], []) and word_maps(maps, []).shape == (0, 2, 2)
    assert join_pieces(["[CLS]", "##x"]) == (["##x"], [[1]])
    assert join_pieces(["[CLS]", "a", "[UNK]"]) == (["a", "(unknown)"], [[1], [2]])


def test_the_layer_shown():
    assert [default_layer(depth) for depth in (1, 2, 3, 6)] == [0, 0, 1, 2]  # the third of the paper's six


def test_mistakes_and_what_was_never_learned(model):
    image = blotches(1)
    for arguments, message in (
        (dict(layer=1), "layer=1: the model has 1 fusion layers, 0 to 0"),
        (dict(top=0), "top=0 must be 1 or more"),
    ):
        with pytest.raises(UserError, match=message):
            model.explain(image, "a circle", **arguments)
    assert "meaningless" in model.explain(image, "\u2603").notes[0]
    assert "first 11 tokens" in model.explain(image, "circle " * 30).notes[0]
    source = model._source
    config = type(source.task.config)(source.task.config.to_dict(), convert_dict=True).unlock()

    def with_config():
        task = type(source.task)(config, tokens=source.task.tokens)
        return cbalign.Model(type(source)("x", task, source.tokenizer, source.params))

    config.loss_weights.mlm = 0.0
    found = with_config().explain(image, "a circle")
    assert found.word_maps is found.maps_by is None and found.token_maps[0].max() > 0
    assert found.notes == ("words do not reach the score through the last fusion layer: no maps by word",)
    config.loss_weights.itm = config.loss_weights.code = 0.0
    untrained = with_config()
    found = untrained.explain(image, "a circle")
    assert found.word_maps is found.match is found.image_codes is found.layer is None and len(found.notes) == 2
    assert found.cosine == pytest.approx(model.explain(image, "a circle").cosine, abs=1e-6)
    with pytest.raises(UserError, match="codebook of x was never trained"):
        untrained.code_neighbours(0, Index(["a"], np.zeros((1, 32), np.float32), []))


def test_neighbours_of_a_code(model, opened):
    codes = np.asarray(opened.params()["codebook"]["codes"], np.float64)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    features = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    index = Index([f"{i}.png" for i in range(9)], features, [])
    found = model.code_neighbours([31, 0], index, top=2)
    for number, hits in zip((31, 0), found):
        scores = features @ codes[number]
        assert [hit.path for hit in hits] == [f"{i}.png" for i in np.argsort(-scores)[:2]]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:2], atol=1e-5)
    with pytest.raises(UserError, match="no code 32; the codebook has codes 0 to 31"):
        model.code_neighbours(32, index)
    assert TrainedCodebook.of(model._source).temperature == opened.config.codebook.temperature
