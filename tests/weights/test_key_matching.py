"""DeiT, ViT and BERT checkpoints in their several spellings; every tensor accounted for, every mismatch named."""

import numpy as np
import pytest
import transformers

from cbalign.errors import UserError
from cbalign.weights.convert import match_checkpoint
from tests.peers.albef import VisionTransformer
from tests.peers.randomise import randomise
from tests.weights.models import albef_checkpoint, as_arrays, assert_same, small_model

VIT = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8
)
BERT = dict(hidden_size=16, num_attention_heads=4, intermediate_size=64, vocab_size=40, max_position_embeddings=12)


def match(source, tensors, **changes):
    return match_checkpoint(source, tensors, small_model(**changes), queue_size=8)


def timm(seed=0):
    return as_arrays(randomise(VisionTransformer(32, 8, 24, 2, 4), seed=seed))


def bert(layers=4, *, kind=transformers.BertForMaskedLM, **changes):
    return as_arrays(randomise(kind(transformers.BertConfig(**{**BERT, **changes}, num_hidden_layers=layers)), seed=1))


def without(prefix, tensors):
    return {name.removeprefix(prefix): array for name, array in tensors.items()}


def test_timm_and_transformers_give_the_same_encoder():
    """The same weights, their queries, keys and values fused by timm and apart in transformers."""
    model = randomise(transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=True), seed=2)
    theirs = as_arrays(model)
    arrays = match("vit", theirs).arrays
    layer = "params/image_encoder/layer_1/attention"
    fused = {"blocks.1.attn.qkv.weight": np.concatenate([theirs[f"layers.1.attention.{x}_proj.weight"] for x in "qkv"])}
    from_timm = match("vit", timm() | fused).arrays
    for part in ("query", "key", "value"):
        np.testing.assert_array_equal(arrays[f"{layer}/{part}/kernel"], from_timm[f"{layer}/{part}/kernel"])


def test_names_of_saved_files_are_those_of_the_class_in_memory(tmp_path):
    """transformers 5 renames on saving; both are read."""
    from safetensors.numpy import load_file

    model = randomise(transformers.ViTModel(transformers.ViTConfig(**VIT)), seed=2)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) != set(model.state_dict())
    assert_same(match("vit", saved).arrays, match("vit", as_arrays(model)).arrays)


@pytest.mark.parametrize("kind", [transformers.ViTForImageClassification, transformers.DeiTForImageClassification])
def test_classifiers_are_unused(kind):
    config = transformers.ViTConfig if kind is transformers.ViTForImageClassification else transformers.DeiTConfig
    matched = match("deit", as_arrays(randomise(kind(config(**VIT)), seed=3)))
    assert any(name.startswith("classifier.") for name, _ in matched.unused)
    assert set(matched.arrays) == {name for name in matched.arrays if name.startswith("params/image_encoder/")}
    assert not any(name.startswith("params/image_encoder/") for name in matched.initialised)


def test_distilled_deit_loses_its_second_token():
    tensors = timm()
    positions = tensors["pos_embed"]
    extra = np.random.default_rng(0).normal(size=(1, 1, 24)).astype(np.float32)
    distilled = {
        **tensors,
        "dist_token": extra,
        "head.weight": extra[0],
        "head_dist.bias": extra[0, 0],
        "pos_embed": np.concatenate([positions[:, :1], extra, positions[:, 1:]], axis=1),
    }
    matched = match("deit", distilled)
    np.testing.assert_array_equal(matched.arrays["params/image_encoder/position_embedding"], positions)
    assert "distillation token" in matched.notes[0]
    with pytest.raises(UserError, match="dist_token"):
        match("vit", distilled)


def test_resolution_is_told_and_brought_to_the_models():
    matched = match("deit", timm(), image_size=64)
    assert matched.resolution == 32 and "from 32 to 64 pixels" in matched.notes[0]
    assert matched.arrays["params/image_encoder/position_embedding"].shape == (1, 65, 24)


@pytest.mark.parametrize(
    "kind, prefix",
    [
        (transformers.BertForMaskedLM, ""),
        (transformers.BertModel, ""),
        (transformers.BertForPreTraining, ""),
        (transformers.BertForMaskedLM, "bert."),
    ],
)
def test_bert_is_split_into_text_and_fusion(kind, prefix):
    tensors = bert(kind=kind)
    matched = match("bert", without(prefix, tensors))
    root = "" if kind is transformers.BertModel else "bert."
    query = f"{root}encoder.layer.{{}}.attention.self.query.weight"
    np.testing.assert_array_equal(
        matched.arrays["params/text_encoder/layers/layer_1/attention/query/kernel"], tensors[query.format(1)].T
    )
    np.testing.assert_array_equal(
        matched.arrays["params/fusion_encoder/layer_1/attention/query/kernel"], tensors[query.format(3)].T
    )
    fusion = [name for name in matched.initialised if name.startswith("params/fusion_encoder/")]
    assert len(fusion) == 2 * (4 * 2 + 2) and all("cross_attention" in name for name in fusion)
    assert ("params/masked_token_head/bias" in matched.arrays) == (kind is not transformers.BertModel)


def test_bert_of_the_text_layers_alone():
    matched = match("bert", bert(2))
    assert {name.split("/")[1] for name in matched.arrays} == {"text_encoder", "masked_token_head"}


def test_old_names_of_norms():
    tensors = bert()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in tensors.items()
    }
    assert_same(match("bert", old).arrays, match("bert", tensors).arrays)


def test_untied_decoder_is_refused():
    tensors = bert()
    tensors["cls.predictions.decoder.weight"] = tensors["cls.predictions.decoder.weight"] + 1
    with pytest.raises(UserError, match=r"cls\.predictions\.decoder\.weight differs .* tied"):
        match("bert", tensors)


def test_norms_and_counts_before_and_after():
    tensors = timm()
    matched = match("deit", tensors)
    count, squares = matched.parameters["params/image_encoder"]
    assert count == sum(array.size for array in tensors.values())
    np.testing.assert_allclose(squares, sum((array.astype(np.float64) ** 2).sum() for array in tensors.values()))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(image_width=48), r"model\.image_width is 48 in the config, 24 in the checkpoint"),
        (dict(image_depth=3), r"model\.image_depth is 3 in the config, 2 in the checkpoint"),
        (dict(patch_size=4), r"model\.patch_size is 4 in the config, 8 in the checkpoint"),
        (dict(mlp_ratio=2), r"model\.mlp_ratio is 2 in the config, 4 in the checkpoint"),
    ],
)
def test_sizes_of_a_vit_that_differ_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        match("deit", timm(), **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(text_width=24, max_positions=10), r"text_width is 24 .*, 16 .*; model\.max_positions is 10 .*, 12"),
        (dict(vocab_size=41), r"vocabulary's size is 41 in the config, 40 in the checkpoint"),
        (dict(text_depth=3), r"the checkpoint has 4 layers: neither 3 nor 5"),
        (dict(mlp_ratio=2), r"model\.mlp_ratio is 2"),
    ],
)
def test_sizes_of_a_bert_that_differ_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        match("bert", bert(), **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(fusion_depth=1, text_depth=3), r"model\.text_depth is 3 .*, 2 .*; model\.fusion_depth is 1 .*, 2"),
        (dict(embed_dim=16), r"model\.embed_dim is 16 in the config, 8 in the checkpoint"),
        (dict(image_depth=1), r"model\.image_depth is 1"),
    ],
)
def test_sizes_of_an_albef_that_differ_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        match("albef", albef_checkpoint(), **changes)


def test_renamed_tensor_is_named_with_the_one_that_misses():
    tensors = timm()
    tensors["norm_final.weight"] = tensors.pop("norm.weight")
    with pytest.raises(UserError, match=r"norm_final\.weight is not among .* while norm\.weight is missing"):
        match("deit", tensors)


def test_missing_tensor_is_named():
    tensors = timm()
    del tensors["blocks.1.mlp.fc2.bias"]
    with pytest.raises(UserError, match=r"lacks blocks\.1\.mlp\.fc2\.bias, of the \d+ tensors of its image"):
        match("deit", tensors)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("blocks.1.mlp.fc2.weight", (24, 95)),
        ("blocks.0.attn.qkv.bias", (71,)),
        ("blocks.0.attn.qkv.weight", (75, 24)),
        ("norm.bias", (24, 1)),
    ],
)
def test_misshaped_tensor_is_named(name, shape):
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        match("deit", {**timm(), name: np.zeros(shape, np.float32)})


def test_tensor_of_integers_is_refused():
    with pytest.raises(UserError, match=r"norm\.bias is of type int64"):
        match("deit", {**timm(), "norm.bias": np.zeros(24, np.int64)})


def test_positions_of_no_square_are_refused():
    with pytest.raises(UserError, match="not those of .CLS. and a square grid: 14 patches"):
        match("deit", {**timm(), "pos_embed": np.zeros((1, 15, 24), np.float32)})


@pytest.mark.parametrize(
    "source, tensors, hint",
    [
        ("bert", timm, "look like --source=vit"),
        ("deit", bert, "look like --source=bert"),
        ("deit", albef_checkpoint, "look like --source=albef"),
        ("albef", timm, "look like --source=vit"),
        ("tcl", bert, "look like --source=bert"),
        ("vit", lambda: {"conv1.weight": np.zeros(1)}, "are of no known kind"),
    ],
)
def test_wrong_kind_is_named(source, tensors, hint):
    with pytest.raises(UserError, match=f"no tensors of a {source} checkpoint in this file; they {hint}"):
        match(source, tensors())


def test_one_tensor_under_two_names_is_refused():
    tensors = bert()
    name = "bert.embeddings.LayerNorm.weight"
    with pytest.raises(UserError, match="two names of one tensor"):
        match("bert", {**tensors, name.removeprefix("bert."): tensors[name]})
