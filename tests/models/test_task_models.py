"""Answer decoder against transformers' BERT decoder; paired fusion against two plain blocks; sharing."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.models.alignment import AlignmentModel
from cbalign.models.bert import BertBlock
from cbalign.models.nlvr2 import AssignmentModel, PairedLayers, PairModel
from cbalign.models.snli_ve import EntailmentModel
from cbalign.models.towers import Sizes, sizes_of
from cbalign.models.vqa import AnswerModel

SIZES = Sizes(
    image_size=16,
    patch_size=8,
    image_width=16,
    image_depth=1,
    image_heads=2,
    vocab_size=40,
    max_positions=9,
    text_width=32,
    text_depth=1,
    text_heads=4,
    fusion_depth=2,
    dropout=0.0,
    init_std=0.3,
)


def random_params(module, *inputs):
    """Random parameters, of norms and biases too; drawn here, for to compile an initialisation takes seconds."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: ((path[-1].key == "scale") + 0.3 * rng.normal(size=x.shape)).astype(np.float32), shapes
    )


@pytest.fixture(scope="module")
def decoder():
    model = AnswerModel(SIZES)
    return model, random_params(model, np.zeros((1, 16, 16, 3), np.uint8), np.ones((1, 5), np.int32))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    answers = np.array([[2, 5, 6, 7], [2, 8, 9, 0], [2, 11, 0, 0]], np.int32)
    questions = np.array([[2, 5, 6, 7, 8], [2, 5, 6, 0, 0], [2, 5, 0, 0, 0]], np.int32)
    return rng.normal(size=(3, 5, 32)).astype(np.float32), questions, answers


def logits_of(decoder, states, questions, answers):
    model, params = decoder
    return np.asarray(model.apply({"params": params}, states, questions, answers, method="answer_logits"))


def bert_decoder(params):
    """transformers' BertLMHeadModel with cross-attention, with the parameters of ours."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=128,
        num_hidden_layers=2,
        vocab_size=40,
        max_position_embeddings=9,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        is_decoder=True,
        add_cross_attention=True,
    )
    model = transformers.BertLMHeadModel(config).eval()
    flat = {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(params, sep="/").items()}
    state = {}

    def put(theirs, ours):
        for name, tail in (("kernel", "weight"), ("scale", "weight"), ("embedding", "weight"), ("bias", "bias")):
            if f"{ours}/{name}" in flat:
                array = flat[f"{ours}/{name}"]
                state[f"{theirs}.{tail}"] = torch.tensor(array.T if name == "kernel" else array)

    for there, here in (
        ("word_embeddings", "word"),
        ("position_embeddings", "position"),
        ("token_type_embeddings", "token_type"),
        ("LayerNorm", "norm"),
    ):
        put(f"bert.embeddings.{there}", f"answer_embeddings/{here}")
    for i in range(2):
        layer = f"bert.encoder.layer.{i}"
        for there, here in (("attention", "attention"), ("crossattention", "cross_attention")):
            for name in ("query", "key", "value"):
                put(f"{layer}.{there}.self.{name}", f"answer_layers/layer_{i}/{here}/{name}")
            put(f"{layer}.{there}.output.dense", f"answer_layers/layer_{i}/{here}/output")
            put(f"{layer}.{there}.output.LayerNorm", f"answer_layers/layer_{i}/{here}_norm")
        put(f"{layer}.intermediate.dense", f"answer_layers/layer_{i}/mlp/intermediate")
        put(f"{layer}.output.dense", f"answer_layers/layer_{i}/mlp/output")
        put(f"{layer}.output.LayerNorm", f"answer_layers/layer_{i}/mlp_norm")
    put("cls.predictions.transform.dense", "answer_head/transform")
    put("cls.predictions.transform.LayerNorm", "answer_head/norm")
    state["cls.predictions.bias"] = state["cls.predictions.decoder.bias"] = torch.tensor(flat["answer_head/bias"])
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return model


def test_decoder_equals_berts(decoder, inputs):
    torch = pytest.importorskip("torch")
    states, questions, answers = inputs
    theirs = (
        bert_decoder(decoder[1])(
            input_ids=torch.tensor(answers, dtype=torch.long),
            attention_mask=torch.tensor((answers != 0).astype(np.int64)),
            encoder_hidden_states=torch.tensor(states),
            encoder_attention_mask=torch.tensor((questions != 0).astype(np.int64)),
        )
        .logits.detach()
        .numpy()
    )
    ours = logits_of(decoder, *inputs)
    keep = answers != 0
    np.testing.assert_allclose(ours[keep], theirs[keep], rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_decoder_sees_no_later_token_and_no_padding(decoder, inputs):
    states, questions, answers = inputs
    before = logits_of(decoder, states, questions, answers)
    later, noise = answers.copy(), states.copy()
    later[0, 2:] = [20, 21]
    noise[questions == 0] += 5.0
    after = logits_of(decoder, noise, questions, later)
    np.testing.assert_allclose(after[0, :2], before[0, :2], atol=1e-5)
    np.testing.assert_allclose(after[1:], before[1:], atol=1e-5)
    assert np.abs(after[0, 2] - before[0, 2]).max() > 1e-2


@pytest.fixture(scope="module")
def paired():
    layers = PairedLayers(depth=2, heads=4, init_std=0.3, dropout=0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 32)).astype(np.float32)
    images = tuple(rng.normal(size=(2, 7, 16)).astype(np.float32) for _ in range(2))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    return layers, random_params(layers, x, mask, images), x, mask, images


def test_paired_layers_are_plain_blocks_with_the_same_keys_and_values(paired):
    layers, params, x, mask, images = paired
    found, y = layers.apply({"params": params}, x, mask, images), jnp.asarray(x)
    for i in range(2):
        for side, image in zip(("first", "second"), images):
            block = dict(params[f"layer_{i}_{side}"])
            block["cross_attention"] = {
                **block["cross_attention"],
                "key": params[f"layer_{i}_key"],
                "value": params[f"layer_{i}_value"],
            }
            y = BertBlock(32, 4, True, dropout=0.0).apply({"params": block}, y, mask[:, None, None, :], image)
    np.testing.assert_allclose(found, y, atol=1e-5)


def test_keys_and_values_are_shared_and_queries_are_not(paired):
    params = paired[1]
    assert set(params) == {f"layer_{i}_{part}" for i in range(2) for part in ("first", "second", "key", "value")}
    for name in ("layer_0_first", "layer_1_second"):
        assert set(params[name]["cross_attention"]) == {"query", "output"}
        assert set(params[name]["attention"]) == {"query", "key", "value", "output"}


def test_both_images_count_and_order_matters(paired):
    layers, params, x, mask, (first, second) = paired
    run = lambda *images: np.asarray(layers.apply({"params": params}, x, mask, images))  # noqa: E731
    base = run(first, second)
    assert all(np.abs(run(*p) - base).max() > 1e-2 for p in ((first, first), (second, second), (second, first)))


def test_each_task_has_its_own_head_only():
    image, ids = np.zeros((1, 16, 16, 3), np.uint8), np.ones((1, 5), np.int32)
    shapes = lambda model: set(jax.eval_shape(model.init, jax.random.key(0), image, ids)["params"])  # noqa: E731
    towers = {"image_encoder", "text_encoder"}
    fused = towers | {"fusion_encoder"}
    assert shapes(AlignmentModel(SIZES)) == fused | {
        "image_projection",
        "text_projection",
        "matching_head",
        "masked_token_head",
        "codebook",
        "temperature",
    }
    assert shapes(EntailmentModel(SIZES)) == fused | {"class_head"}
    assert shapes(PairModel(SIZES)) == towers | {"paired_encoder", "class_head"}
    assert shapes(AssignmentModel(SIZES, 8)) == towers | {"paired_encoder", "assignment_head", "image_projection"}
    assert shapes(AnswerModel(SIZES)) == fused | {"answer_embeddings", "answer_layers", "answer_head"}


def test_no_task_model_has_modules_it_never_uses():
    """The modules that `setup` makes are those that have parameters."""
    image, ids = np.zeros((1, 16, 16, 3), np.uint8), np.ones((1, 5), np.int32)
    for model in (
        AlignmentModel(SIZES),
        EntailmentModel(SIZES),
        PairModel(SIZES),
        AssignmentModel(SIZES, 8),
        AnswerModel(SIZES),
    ):
        params = jax.eval_shape(model.init, jax.random.key(0), image, ids)["params"]
        made = model.bind({"params": {}})
        made.setup()
        assert {name for name, x in vars(made).items() if isinstance(x, flax.linen.Module) and name != "parent"} == set(
            params
        )


def test_sizes_of_a_mapping():
    section = {
        "patch_size": 8,
        "image_width": 16,
        "image_depth": 1,
        "image_heads": 2,
        "max_positions": 9,
        "text_width": 32,
        "text_depth": 1,
        "text_heads": 4,
        "fusion_depth": 2,
        "dtype": "bfloat16",
        "remat": True,
        "embed_dim": 256,
    }
    sizes = sizes_of(section, image_size=16, vocab_size=40)
    assert (sizes.image_size, sizes.vocab_size, sizes.text_width, sizes.remat) == (16, 40, 32, True)
    assert sizes.dtype == jnp.bfloat16 and sizes.mlp_ratio == 4 and sizes.dropout == 0.1
