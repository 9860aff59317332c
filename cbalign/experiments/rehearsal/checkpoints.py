"""Miniature checkpoints in the layouts in which DeiT and BERT are released, with random values."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import string

import numpy as np

from cbalign.models.towers import Sizes

# DeiT is trained at 224 pixels: 14 x 14 patches and [CLS].
_DEIT_POSITIONS = 14 * 14 + 1
_BERT_POSITIONS = 512
_WORDS = (
    "image as person sees it thing number the region of is sky blue pair sentence what colour clock yes no red true "
    "false this entailment neutral contradiction net fence dark green word"
)


def write_deit(folder: pathlib.Path, sizes: Sizes) -> pathlib.Path:
    """Writes `deit_base_patch16_224.pth` in miniature, {"model": state dict with timm's names}; returns the file."""
    rng, width, patch = np.random.default_rng(0), sizes.image_width, sizes.patch_size
    tensors = {
        "cls_token": _normal(rng, 1, 1, width),
        "pos_embed": _normal(rng, 1, _DEIT_POSITIONS, width),
        "patch_embed.proj.weight": _normal(rng, width, 3, patch, patch),
        "patch_embed.proj.bias": _normal(rng, width),
    }
    for i in range(sizes.image_depth):
        block = f"blocks.{i}"
        tensors |= _norm(f"{block}.norm1", width, ("weight", "bias"))
        tensors |= _linear(rng, f"{block}.attn.qkv", 3 * width, width)
        tensors |= _linear(rng, f"{block}.attn.proj", width, width)
        tensors |= _norm(f"{block}.norm2", width, ("weight", "bias"))
        tensors |= _linear(rng, f"{block}.mlp.fc1", sizes.mlp_ratio * width, width)
        tensors |= _linear(rng, f"{block}.mlp.fc2", width, sizes.mlp_ratio * width)
    tensors |= _norm("norm", width, ("weight", "bias")) | _linear(rng, "head", 1000, width)
    return _save(folder / "deit_base_patch16_224", tensors, suffix=".pth", wrap="model")


def write_bert(folder: pathlib.Path, sizes: Sizes, words: list[str]) -> pathlib.Path:
    """Writes `bert-base-uncased` in miniature, with the names of its release (gamma and beta); returns its folder."""
    rng, width, folder = np.random.default_rng(1), sizes.text_width, folder / "bert-base-uncased"
    folder.mkdir(parents=True, exist_ok=True)
    layers, hidden, old = sizes.text_depth + sizes.fusion_depth, sizes.mlp_ratio * width, ("gamma", "beta")
    tensors = {
        "bert.embeddings.word_embeddings.weight": _normal(rng, len(words), width),
        "bert.embeddings.position_embeddings.weight": _normal(rng, _BERT_POSITIONS, width),
        "bert.embeddings.token_type_embeddings.weight": _normal(rng, 2, width),
        **_norm("bert.embeddings.LayerNorm", width, old),
    }
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            tensors |= _linear(rng, f"{layer}.attention.self.{name}", width, width)
        tensors |= _linear(rng, f"{layer}.attention.output.dense", width, width)
        tensors |= _norm(f"{layer}.attention.output.LayerNorm", width, old)
        tensors |= _linear(rng, f"{layer}.intermediate.dense", hidden, width)
        tensors |= _linear(rng, f"{layer}.output.dense", width, hidden)
        tensors |= _norm(f"{layer}.output.LayerNorm", width, old)
    tensors |= _linear(rng, "bert.pooler.dense", width, width)
    tensors |= {"cls.predictions.bias": _normal(rng, len(words))}
    tensors |= _linear(rng, "cls.predictions.transform.dense", width, width)
    tensors |= _norm("cls.predictions.transform.LayerNorm", width, old)
    tensors |= {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"]}
    tensors |= _linear(rng, "cls.seq_relationship", 2, width)
    _save(folder / "pytorch_model", tensors, suffix=".bin", instead="model")
    config = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": hidden,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": _BERT_POSITIONS,
        "model_type": "bert",
        "num_attention_heads": sizes.text_heads,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": len(words),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return folder


def vocabulary(*, size: int = 0) -> list[str]:
    """A vocabulary laid out as BERT's: [PAD] first, unused places, [UNK], [CLS], [SEP], [MASK], characters, words.

    Args:
      size: of it; filled up with further unused places. 0: no more than the words.
    """
    characters = string.ascii_lowercase + string.digits
    words = [
        "[PAD]",
        *(f"[unused{i}]" for i in range(20)),
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        *(f"##{character}" for character in characters),
        *_WORDS.split(),
    ]
    return words + [f"[unused{i}]" for i in range(20, 20 + size - len(words))]


def _normal(rng, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.02, shape).astype(np.float32)


def _linear(rng, name: str, outputs: int, inputs: int) -> dict[str, np.ndarray]:
    return {f"{name}.weight": _normal(rng, outputs, inputs), f"{name}.bias": _normal(rng, outputs)}


def _norm(name: str, width: int, parts: tuple[str, str]) -> dict[str, np.ndarray]:
    scale, shift = parts
    return {f"{name}.{scale}": np.ones(width, np.float32), f"{name}.{shift}": np.zeros(width, np.float32)}


def _save(path: pathlib.Path, tensors: dict, *, suffix: str, wrap: str = "", instead: str = "") -> pathlib.Path:
    """Writes PyTorch's format as released, or safetensors under the name `instead` where PyTorch is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("torch") is None:
        import safetensors.numpy

        path = path.with_name(f"{instead or path.name}.safetensors")
        safetensors.numpy.save_file(tensors, path)
        return path
    import torch

    path, content = path.with_name(path.name + suffix), {name: torch.tensor(x) for name, x in tensors.items()}
    torch.save({wrap: content} if wrap else content, path)
    return path
