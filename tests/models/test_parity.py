"""Full forward passes against the public PyTorch towers, on random weights far from initialisation.

The weights go through the rename tables of `cbalign.weights`, so that these are held by the same comparison.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from cbalign.models.bert import BertLayers, MaskedTokenHead, TextEncoder
from cbalign.models.vit import IMAGE_MEAN, IMAGE_STD, VisionTransformer, normalise_image
from cbalign.weights import key_tables
from tests.peers import albef
from tests.peers.randomise import randomise

WIDTH, HEADS, VOCAB = 32, 4, 50
SIZES = dict(hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH)


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))


def tower(module, entries, prefix, *, spell=lambda name: name):
    """The parameters under a prefix here, of a PyTorch module."""
    state = {spell(name): tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    flat = {}
    for entry in entries:
        if not entry.copy:
            flat |= dict(zip(entry.ours, entry.layout.to_ours(state[entry.theirs])))
    flat = {name.removeprefix(prefix): array for name, array in flat.items() if name.startswith(prefix)}
    return {"params": flax.traverse_util.unflatten_dict(flat, sep="/")}


def padded_ids(rng):
    ids = rng.integers(5, VOCAB, (3, 9)).astype(np.int32)
    ids[1, 4:] = 0
    ids[2, 7:] = 0
    return ids


def vit_images(size):
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [32, 48])
def test_vit_equals_the_public_one(size):
    config = transformers.ViTConfig(
        **SIZES,
        num_hidden_layers=3,
        image_size=size,
        patch_size=8,
        layer_norm_eps=1e-6,
        hidden_act="gelu",
        qkv_bias=True,
    )
    model = randomise(transformers.ViTModel(config, add_pooling_layer=False), seed=size)
    ours = VisionTransformer(image_size=size, patch_size=8, width=WIDTH, depth=3, heads=HEADS)
    image = vit_images(size)
    theirs = model(torch.tensor(image.transpose(0, 3, 1, 2))).last_hidden_state
    _, table = key_tables.image_tables("vit", depth=3)
    params = tower(model, table.entries, "params/image_encoder/", spell=table.spell)
    assert_close(ours.apply(params, jnp.asarray(image)), theirs)


@pytest.mark.parametrize("size", [32, 48])
def test_vit_equals_albefs(size):
    model = randomise(albef.VisionTransformer(size, 8, WIDTH, 3, HEADS), seed=size)
    ours = VisionTransformer(image_size=size, patch_size=8, width=WIDTH, depth=3, heads=HEADS)
    image = vit_images(size)
    params = tower(model, key_tables.timm_vit(3), "params/image_encoder/")
    assert_close(ours.apply(params, jnp.asarray(image)), model(torch.tensor(image.transpose(0, 3, 1, 2))))


def bert(seed=1):
    config = transformers.BertConfig(
        **SIZES,
        num_hidden_layers=3,
        vocab_size=VOCAB,
        max_position_embeddings=12,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
    )
    return randomise(transformers.BertForMaskedLM(config), seed=seed)


def text_tower(model):
    return tower(model, key_tables.bert_table(text_depth=3, fusion_depth=0).entries, "params/text_encoder/")


@pytest.mark.parametrize("padded", [False, True])
def test_text_layers_and_masked_token_head_equal_bert(padded):
    model, rng = bert(), np.random.default_rng(1)
    ids = padded_ids(rng) if padded else rng.integers(5, VOCAB, (3, 9)).astype(np.int32)
    mask = torch.tensor((ids != 0).astype(np.int64))
    ours = TextEncoder(vocab_size=VOCAB, max_positions=12, width=WIDTH, depth=3, heads=HEADS)
    params = text_tower(model)
    hidden = ours.apply(params, jnp.asarray(ids))
    theirs = model.bert(torch.tensor(ids, dtype=torch.long), attention_mask=mask).last_hidden_state
    keep = ids != 0
    assert_close(np.asarray(hidden)[keep], theirs[torch.tensor(keep)])

    head = tower(model, key_tables.masked_token_head(), "params/masked_token_head/")
    logits = MaskedTokenHead(vocab_size=VOCAB).apply(head, hidden, params["params"]["embeddings"]["word"]["embedding"])
    expected = model(torch.tensor(ids, dtype=torch.long), attention_mask=mask).logits
    assert_close(np.asarray(logits)[keep], expected[torch.tensor(keep)])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("image_width", [WIDTH, 48])
def test_fusion_layers_equal_blips_text_model(image_width, padded):
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    config = transformers.BlipTextConfig(
        **SIZES,
        num_hidden_layers=2,
        vocab_size=VOCAB,
        max_position_embeddings=12,
        encoder_hidden_size=image_width,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        is_decoder=True,
    )
    model = randomise(BlipTextModel(config, add_pooling_layer=False), seed=2)
    rng = np.random.default_rng(2)
    ids = padded_ids(rng) if padded else np.ones((3, 9), np.int32)
    x = rng.normal(size=(3, 9, WIDTH)).astype(np.float32)
    image = rng.normal(size=(3, 5, image_width)).astype(np.float32)
    theirs = model(
        encoder_embeds=torch.tensor(x),
        attention_mask=torch.tensor((ids != 0).astype(np.int64)),
        encoder_hidden_states=torch.tensor(image),
        is_decoder=False,
    ).last_hidden_state
    entries = key_tables.expand(key_tables.BERT_LAYER + key_tables.CROSS_ATTENTION, "", "", "fusion", ((0, 0), (1, 1)))
    ours = BertLayers(WIDTH, depth=2, heads=HEADS, cross_attention=True)
    fused = ours.apply(tower(model, entries, ""), jnp.asarray(x), jnp.asarray(ids != 0), jnp.asarray(image))
    keep = ids != 0
    assert_close(np.asarray(fused)[keep], theirs[torch.tensor(keep)])


def test_padding_has_no_influence():
    params = text_tower(bert(seed=3))
    ours = TextEncoder(vocab_size=VOCAB, max_positions=12, width=WIDTH, depth=3, heads=HEADS)
    ids = np.asarray([[2, 7, 8, 9]], np.int32)
    longer = np.concatenate([ids, np.zeros((1, 5), np.int32)], axis=1)
    np.testing.assert_allclose(ours.apply(params, longer)[:, :4], ours.apply(params, ids), rtol=1e-4, atol=1e-4)


def test_pixels_are_normalised_as_albef_does():
    image = np.asarray([[[[0, 128, 255]]]], np.uint8)
    expected = (np.asarray([0, 128, 255]) / 255 - IMAGE_MEAN) / IMAGE_STD
    np.testing.assert_allclose(normalise_image(jnp.asarray(image))[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("position_std, expected", [(0.0, 0.05), (0.7, 0.7)])
def test_position_embeddings_start_at_a_scale_of_their_own(position_std, expected):
    model = VisionTransformer(
        image_size=32, patch_size=8, width=256, depth=0, heads=HEADS, init_std=0.05, position_std=position_std
    )
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8))["params"]
    # A normal cut off at two standard deviations has 0.8796 of the one it is cut from.
    np.testing.assert_allclose(params["position_embedding"].std(), 0.8796 * expected, rtol=0.05)
    np.testing.assert_allclose(params["patch_embedding"]["kernel"].std(), 0.8796 * 0.05, rtol=0.05)


def test_wrong_image_size_is_named():
    model = VisionTransformer(image_size=32, patch_size=8, width=WIDTH, depth=1, heads=HEADS)
    with pytest.raises(ValueError, match=r"32, 32.*\(1, 16, 16, 3\)"):
        model.apply({"params": {}}, jnp.zeros((1, 16, 16, 3), jnp.uint8))
