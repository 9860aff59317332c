"""Full forward passes against the public PyTorch towers, on random weights far from initialisation."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from cbalign.models.bert import BertLayers, MaskedTokenHead, TextEncoder
from cbalign.models.vit import IMAGE_MEAN, IMAGE_STD, VisionTransformer, normalise_image
from tests.peers import torch_weights as peer

WIDTH, HEADS, VOCAB = 32, 4, 50
SIZES = dict(hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH)


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), peer.as_numpy(theirs)
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))


def padded_ids(rng):
    ids = rng.integers(5, VOCAB, (3, 9)).astype(np.int32)
    ids[1, 4:] = 0
    ids[2, 7:] = 0
    return ids


@pytest.mark.parametrize("size", [32, 48])
def test_vit_equals_the_public_one(size):
    config = transformers.ViTConfig(**SIZES, num_hidden_layers=3, image_size=size, patch_size=8, layer_norm_eps=1e-6,
                                    hidden_act="gelu", qkv_bias=True)
    model = peer.randomise(transformers.ViTModel(config, add_pooling_layer=False), seed=size)
    ours = VisionTransformer(image_size=size, patch_size=8, width=WIDTH, depth=3, heads=HEADS)
    image = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    theirs = model(torch.tensor(image.transpose(0, 3, 1, 2))).last_hidden_state
    assert_close(ours.apply({"params": peer.vit(model)}, jnp.asarray(image)), theirs)


def bert(seed=1):
    config = transformers.BertConfig(**SIZES, num_hidden_layers=3, vocab_size=VOCAB, max_position_embeddings=12,
                                     layer_norm_eps=1e-12, hidden_act="gelu")
    return peer.randomise(transformers.BertForMaskedLM(config), seed=seed)


@pytest.mark.parametrize("padded", [False, True])
def test_text_layers_and_masked_token_head_equal_bert(padded):
    model, rng = bert(), np.random.default_rng(1)
    ids = padded_ids(rng) if padded else rng.integers(5, VOCAB, (3, 9)).astype(np.int32)
    mask = torch.tensor((ids != 0).astype(np.int64))
    layers = {f"layer_{i}": peer.bert_layer(layer) for i, layer in enumerate(model.bert.encoder.layer)}
    params = {"embeddings": peer.bert_embeddings(model.bert.embeddings), "layers": layers}
    ours = TextEncoder(vocab_size=VOCAB, max_positions=12, width=WIDTH, depth=3, heads=HEADS)
    hidden = ours.apply({"params": params}, jnp.asarray(ids))
    theirs = model.bert(torch.tensor(ids, dtype=torch.long), attention_mask=mask).last_hidden_state
    keep = ids != 0
    assert_close(np.asarray(hidden)[keep], theirs[torch.tensor(keep)])

    head = MaskedTokenHead(vocab_size=VOCAB)
    logits = head.apply({"params": peer.masked_token_head(model.cls.predictions)}, hidden,
                        params["embeddings"]["word"]["embedding"])
    expected = model(torch.tensor(ids, dtype=torch.long), attention_mask=mask).logits
    assert_close(np.asarray(logits)[keep], expected[torch.tensor(keep)])


@pytest.mark.parametrize("image_width", [WIDTH, 48])
def test_fusion_layers_equal_blips_text_model(image_width):
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    config = transformers.BlipTextConfig(**SIZES, num_hidden_layers=2, vocab_size=VOCAB, max_position_embeddings=12,
                                         encoder_hidden_size=image_width, layer_norm_eps=1e-12, hidden_act="gelu",
                                         is_decoder=True)
    model = peer.randomise(BlipTextModel(config, add_pooling_layer=False), seed=2)
    rng = np.random.default_rng(2)
    ids = padded_ids(rng)
    x = rng.normal(size=(3, 9, WIDTH)).astype(np.float32)
    image = rng.normal(size=(3, 5, image_width)).astype(np.float32)
    theirs = model(encoder_embeds=torch.tensor(x), attention_mask=torch.tensor((ids != 0).astype(np.int64)),
                   encoder_hidden_states=torch.tensor(image), is_decoder=False).last_hidden_state
    params = {f"layer_{i}": peer.bert_layer(layer) for i, layer in enumerate(model.encoder.layer)}
    ours = BertLayers(depth=2, heads=HEADS, cross_attention=True)
    fused = ours.apply({"params": params}, jnp.asarray(x), jnp.asarray(ids != 0), jnp.asarray(image))
    keep = ids != 0
    assert_close(np.asarray(fused)[keep], theirs[torch.tensor(keep)])


def test_padding_has_no_influence():
    model = bert(seed=3)
    layers = {f"layer_{i}": peer.bert_layer(layer) for i, layer in enumerate(model.bert.encoder.layer)}
    params = {"params": {"embeddings": peer.bert_embeddings(model.bert.embeddings), "layers": layers}}
    ours = TextEncoder(vocab_size=VOCAB, max_positions=12, width=WIDTH, depth=3, heads=HEADS)
    ids = np.asarray([[2, 7, 8, 9]], np.int32)
    longer = np.concatenate([ids, np.zeros((1, 5), np.int32)], axis=1)
    np.testing.assert_allclose(ours.apply(params, longer)[:, :4], ours.apply(params, ids), rtol=1e-4, atol=1e-4)


def test_pixels_are_normalised_as_albef_does():
    image = np.asarray([[[[0, 128, 255]]]], np.uint8)
    expected = (np.asarray([0, 128, 255]) / 255 - IMAGE_MEAN) / IMAGE_STD
    np.testing.assert_allclose(normalise_image(jnp.asarray(image))[0, 0, 0], expected, rtol=1e-5)


def test_wrong_picture_size_is_named():
    model = VisionTransformer(image_size=32, patch_size=8, width=WIDTH, depth=1, heads=HEADS)
    with pytest.raises(ValueError, match=r"32, 32.*\(1, 16, 16, 3\)"):
        model.apply({"params": {}}, jnp.zeros((1, 16, 16, 3), jnp.uint8))
