"""Copies weights of the public PyTorch towers into this project's parameter trees, for parity tests."""

import numpy as np
import torch


def randomise(module, *, seed: int, scale: float = 0.3):
    """Weights far from initialisation, so that a missing norm, bias or residual shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * scale
            is_norm_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1.0 + noise if is_norm_scale else noise)
    return module.eval()


def linear(layer) -> dict:
    return {"kernel": layer.weight.detach().numpy().T, "bias": layer.bias.detach().numpy()}


def norm(layer) -> dict:
    return {"scale": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}


def attention(block) -> dict:
    """HF BERT's or BLIP's `attention` or `crossattention`."""
    inner = block.self
    return {"query": linear(inner.query), "key": linear(inner.key), "value": linear(inner.value),
            "output": linear(block.output.dense)}


def bert_layer(layer) -> dict:
    tree = {
        "attention": attention(layer.attention), "attention_norm": norm(layer.attention.output.LayerNorm),
        "mlp": {"intermediate": linear(layer.intermediate.dense), "output": linear(layer.output.dense)},
        "mlp_norm": norm(layer.output.LayerNorm),
    }
    if hasattr(layer, "crossattention"):
        tree["cross_attention"] = attention(layer.crossattention)
        tree["cross_attention_norm"] = norm(layer.crossattention.output.LayerNorm)
    return tree


def bert_embeddings(embeddings) -> dict:
    def table(name):
        return {"embedding": getattr(embeddings, name).weight.detach().numpy()}

    return {"word": table("word_embeddings"), "position": table("position_embeddings"),
            "token_type": table("token_type_embeddings"), "norm": norm(embeddings.LayerNorm)}


def masked_token_head(predictions) -> dict:
    return {"transform": linear(predictions.transform.dense), "norm": norm(predictions.transform.LayerNorm),
            "bias": predictions.bias.detach().numpy()}


def vit(model) -> dict:
    """HF `ViTModel`."""
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    width = state["embeddings.cls_token"].shape[-1]
    # The convolution's [width, 3, p, p] in the order of the patches' pixels: row, column, channel.
    kernel = state["embeddings.patch_embeddings.projection.weight"].transpose(2, 3, 1, 0).reshape(-1, width)
    tree = {
        "cls_token": state["embeddings.cls_token"], "position_embedding": state["embeddings.position_embeddings"],
        "patch_embedding": {"kernel": kernel, "bias": state["embeddings.patch_embeddings.projection.bias"]},
        "norm": norm(model.layernorm),
    }
    layers = model.layers if hasattr(model, "layers") else model.encoder.layer
    for i, layer in enumerate(layers):
        tree[f"layer_{i}"] = _vit_layer(layer)
    return tree


def _vit_layer(layer) -> dict:
    names = dict(layer.named_modules())

    def find(*endings):
        return next(names[name] for ending in endings for name in names if name.endswith(ending))

    return {
        "attention": {"query": linear(find("query", "q_proj")), "key": linear(find("key", "k_proj")),
                      "value": linear(find("value", "v_proj")),
                      "output": linear(find("attention.output.dense", "o_proj"))},
        "attention_norm": norm(find("layernorm_before")), "mlp_norm": norm(find("layernorm_after")),
        "mlp": {"intermediate": linear(find("intermediate.dense", "fc1")),
                "output": linear(next(names[n] for n in names if n in ("output.dense", "mlp.fc2")))},
    }


def as_numpy(tensor) -> np.ndarray:
    return tensor.detach().numpy()
