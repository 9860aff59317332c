"""Names of public checkpoints' tensors in this project: one table per family of checkpoints, read in both directions.

This project's names are "params/...", "teacher/..." (the momentum teacher's part of the same tree) and "queue/...".
Rows are (module in the checkpoint, module in this project, kind), with `{i}` for a layer's number in the checkpoint and
`{j}` for that of the same layer in this project; a kind lists the tensors of such a module.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cbalign.weights.layouts import FUSED_BIASES, FUSED_KERNELS, IDS, PATCHES, POINTER, SAME, TRANSPOSED, Layout

# Kinds of modules: (suffix in the checkpoint, suffixes in this project, layout).
_PARTS = ("/query", "/key", "/value")
LINEAR = ((".weight", ("/kernel",), TRANSPOSED), (".bias", ("/bias",), SAME))
NORM = ((".weight", ("/scale",), SAME), (".bias", ("/bias",), SAME))
EMBEDDING = ((".weight", ("/embedding",), SAME),)
CONVOLUTION = ((".weight", ("/kernel",), PATCHES), (".bias", ("/bias",), SAME))
FUSED = (
    (".weight", tuple(p + "/kernel" for p in _PARTS), FUSED_KERNELS),
    (".bias", tuple(p + "/bias" for p in _PARTS), FUSED_BIASES),
)
TENSOR = (("", ("",), SAME),)

TIMM_VIT = (
    ("cls_token", "cls_token", TENSOR),
    ("pos_embed", "position_embedding", TENSOR),
    ("patch_embed.proj", "patch_embedding", CONVOLUTION),
    ("blocks.{i}.norm1", "layer_{j}/attention_norm", NORM),
    ("blocks.{i}.attn.qkv", "layer_{j}/attention", FUSED),
    ("blocks.{i}.attn.proj", "layer_{j}/attention/output", LINEAR),
    ("blocks.{i}.norm2", "layer_{j}/mlp_norm", NORM),
    ("blocks.{i}.mlp.fc1", "layer_{j}/mlp/intermediate", LINEAR),
    ("blocks.{i}.mlp.fc2", "layer_{j}/mlp/output", LINEAR),
    ("norm", "norm", NORM),
)

TRANSFORMERS_VIT = (
    ("embeddings.cls_token", "cls_token", TENSOR),
    ("embeddings.position_embeddings", "position_embedding", TENSOR),
    ("embeddings.patch_embeddings.projection", "patch_embedding", CONVOLUTION),
    ("encoder.layer.{i}.layernorm_before", "layer_{j}/attention_norm", NORM),
    ("encoder.layer.{i}.attention.attention.query", "layer_{j}/attention/query", LINEAR),
    ("encoder.layer.{i}.attention.attention.key", "layer_{j}/attention/key", LINEAR),
    ("encoder.layer.{i}.attention.attention.value", "layer_{j}/attention/value", LINEAR),
    ("encoder.layer.{i}.attention.output.dense", "layer_{j}/attention/output", LINEAR),
    ("encoder.layer.{i}.layernorm_after", "layer_{j}/mlp_norm", NORM),
    ("encoder.layer.{i}.intermediate.dense", "layer_{j}/mlp/intermediate", LINEAR),
    ("encoder.layer.{i}.output.dense", "layer_{j}/mlp/output", LINEAR),
    ("layernorm", "norm", NORM),
)

BERT_EMBEDDINGS = (
    ("embeddings.word_embeddings", "embeddings/word", EMBEDDING),
    ("embeddings.position_embeddings", "embeddings/position", EMBEDDING),
    ("embeddings.token_type_embeddings", "embeddings/token_type", EMBEDDING),
    ("embeddings.LayerNorm", "embeddings/norm", NORM),
)

BERT_LAYER = (
    ("encoder.layer.{i}.attention.self.query", "layer_{j}/attention/query", LINEAR),
    ("encoder.layer.{i}.attention.self.key", "layer_{j}/attention/key", LINEAR),
    ("encoder.layer.{i}.attention.self.value", "layer_{j}/attention/value", LINEAR),
    ("encoder.layer.{i}.attention.output.dense", "layer_{j}/attention/output", LINEAR),
    ("encoder.layer.{i}.attention.output.LayerNorm", "layer_{j}/attention_norm", NORM),
    ("encoder.layer.{i}.intermediate.dense", "layer_{j}/mlp/intermediate", LINEAR),
    ("encoder.layer.{i}.output.dense", "layer_{j}/mlp/output", LINEAR),
    ("encoder.layer.{i}.output.LayerNorm", "layer_{j}/mlp_norm", NORM),
)

# The names in ALBEF's and BLIP's text models; BERT has no cross-attention.
CROSS_ATTENTION = (
    ("encoder.layer.{i}.crossattention.self.query", "layer_{j}/cross_attention/query", LINEAR),
    ("encoder.layer.{i}.crossattention.self.key", "layer_{j}/cross_attention/key", LINEAR),
    ("encoder.layer.{i}.crossattention.self.value", "layer_{j}/cross_attention/value", LINEAR),
    ("encoder.layer.{i}.crossattention.output.dense", "layer_{j}/cross_attention/output", LINEAR),
    ("encoder.layer.{i}.crossattention.output.LayerNorm", "layer_{j}/cross_attention_norm", NORM),
)

MASKED_TOKEN_HEAD = (
    ("predictions.transform.dense", "transform", LINEAR),
    ("predictions.transform.LayerNorm", "norm", NORM),
    ("predictions.bias", "bias", TENSOR),
)


class Entry(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
      theirs: its name.
      ours: the names in this project of the parameters it holds.
      layout: converts between the two.
      group: the tensors of a group are all present or all absent.
      copy: a second copy of a tied weight; it may be absent, otherwise it must equal the first.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout
    group: str
    copy: bool = False


class Table(NamedTuple):
    """A family of checkpoints.

    Attributes:
      title: its name in messages.
      entries: its tensors.
      required: groups that must be present; the others may be absent as a whole.
      spellings: (pattern, replacement), applied first to names in the checkpoint that have variants.
      unused: (pattern, reason) of names in the checkpoint that are left out.
      initialised: patterns of this project's parameters that such a checkpoint may lack; a run initialises them.
      buffers: {name: array} that the family's own code expects beside the parameters.
    """

    title: str
    entries: tuple[Entry, ...]
    required: frozenset
    spellings: tuple = ()
    unused: tuple = ()
    initialised: tuple = ()
    buffers: dict = {}

    def spell(self, name: str) -> str:
        """A name in the table's spelling."""
        for pattern, replacement in (*_COMMON_SPELLINGS, *self.spellings):
            name = re.sub(pattern, replacement, name)
        return name


# PyTorch's wrapper for several devices; BERT files that were converted from TensorFlow.
_COMMON_SPELLINGS = (
    (r"^module\.", ""),
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
)


def expand(rows, theirs: str, ours: str, group: str, layers=((0, 0),)) -> Iterator[Entry]:
    """The entries of rows under both sides' prefixes; rows with `{i}` once per layer of `layers`, pairs (i, j)."""
    for module, own, kind in rows:
        for i, j in layers if "{i}" in module else ((0, 0),):
            for suffix, own_suffixes, layout in kind:
                names = tuple(f"{ours}{own.format(j=j)}{own_suffix}" for own_suffix in own_suffixes)
                yield Entry(f"{theirs}{module.format(i=i)}{suffix}", names, layout, group)


def _same(depth: int, *, first: int = 0) -> tuple:
    return tuple((first + j, j) for j in range(depth))


def timm_vit(depth: int, *, theirs: str = "", ours: str = "params/image_encoder/", group: str = "image") -> tuple:
    """A vision transformer by the names of timm, DeiT and ALBEF."""
    return tuple(expand(TIMM_VIT, theirs, ours, group, _same(depth)))


def text_layers(
    text_depth: int,
    fusion_depth: int,
    *,
    theirs: str = "bert.",
    root: str = "params",
    group: str = "",
    cross_attention: bool = False,
) -> tuple:
    """BERT's embeddings and layers: the first `text_depth` are the text encoder, `fusion_depth` more fusion layers."""
    text, fusion = (group or "text"), (group or "fusion")
    rows = BERT_LAYER + CROSS_ATTENTION if cross_attention else BERT_LAYER
    return (
        *expand(BERT_EMBEDDINGS, theirs, f"{root}/text_encoder/", text),
        *expand(BERT_LAYER, theirs, f"{root}/text_encoder/layers/", text, _same(text_depth)),
        *expand(rows, theirs, f"{root}/fusion_encoder/", fusion, _same(fusion_depth, first=text_depth)),
    )


def masked_token_head(theirs: str = "cls.", *, root: str = "params", group: str = "masked_token_head") -> tuple:
    """BERT's head for masked tokens, whose decoder is tied to the word embeddings."""
    decoder = f"{theirs}predictions.decoder"
    return (
        *expand(MASKED_TOKEN_HEAD, theirs, f"{root}/masked_token_head/", group),
        Entry(f"{decoder}.weight", (f"{root}/text_encoder/embeddings/word/embedding",), SAME, group, copy=True),
        Entry(f"{decoder}.bias", (f"{root}/masked_token_head/bias",), SAME, group, copy=True),
    )


def image_tables(source: str, *, depth: int) -> tuple[Table, ...]:
    """A DeiT's or ViT's two tables: by timm's names and by those of `transformers`."""
    distilled = source == "deit"
    common = dict(required=frozenset({"image"}), initialised=(r"(?!image_encoder/).*",))
    timm_unused = [(r"(head|pre_logits)\..*", "classifier")]
    hf_unused = [
        (r"(pooler|classifier)\..*", "pooler and classifier"),
        (r"embeddings\.mask_token", "for masked images"),
    ]
    if distilled:
        timm_unused += [(r"head_dist\..*", "classifier"), (r"dist_token", "distillation token")]
        hf_unused += [
            (r"(cls|distillation)_classifier\..*", "classifier"),
            (r"embeddings\.distillation_token", "distillation token"),
        ]
    renamed = tuple(
        (rf"^layers\.(\d+)\.{new}\.", rf"encoder.layer.\1.{old}.")
        for new, old in (
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("layernorm_before", "layernorm_before"),
            ("layernorm_after", "layernorm_after"),
        )
    )
    kind = "DeiT" if distilled else "ViT"
    return (
        Table(f"{kind}, names of timm", timm_vit(depth), unused=tuple(timm_unused), **common),
        Table(
            f"{kind}, names of transformers",
            tuple(expand(TRANSFORMERS_VIT, "", "params/image_encoder/", "image", _same(depth))),
            spellings=((r"^(vit|deit)\.", ""), *renamed),
            unused=tuple(hf_unused),
            **common,
        ),
    )


def bert_table(*, text_depth: int, fusion_depth: int) -> Table:
    """BERT; `fusion_depth` is 0 where the checkpoint only has layers for the text encoder."""
    return Table(
        "BERT, names of transformers",
        (*text_layers(text_depth, fusion_depth), *masked_token_head()),
        required=frozenset({"text"} | ({"fusion"} if fusion_depth else set())),
        spellings=((r"^(embeddings|encoder|pooler)\.", r"bert.\1."),),
        unused=(
            (r"bert\.pooler\..*", "pooler"),
            (r"cls\.seq_relationship\..*", "next-sentence head"),
            (r"bert\.embeddings\.position_ids", "counts 0, 1, 2, ..."),
        ),
        initialised=(
            r"(?!text_encoder/|fusion_encoder/).*",
            r"fusion_encoder/.*/cross_attention(_norm)?/.*" if fusion_depth else r"fusion_encoder/.*",
        ),
    )


def albef_table(*, image_depth: int, text_depth: int, fusion_depth: int, max_positions: int = 512) -> Table:
    """ALBEF's and TCL's pretrained models; fine-tuned for retrieval, without `bert.` and masked-token head.

    Tensors under "cbalign." exist in this project only; `export` writes them beside ALBEF's.
    """
    entries, buffers = [], {}
    for mark, root, group in (("", "params", ""), ("_m", "teacher", "teacher")):
        entries += timm_vit(
            image_depth, theirs=f"visual_encoder{mark}.", ours=f"{root}/image_encoder/", group=group or "image"
        )
        entries += text_layers(
            text_depth, fusion_depth, theirs=f"text_encoder{mark}.bert.", root=root, group=group, cross_attention=True
        )
        entries += masked_token_head(f"text_encoder{mark}.cls.", root=root, group=f"{group} masked_token_head".strip())
        for theirs, ours in (("vision_proj", "image_projection"), ("text_proj", "text_projection")):
            entries += expand([(f"{theirs}{mark}", ours, LINEAR)], "", f"{root}/", group or "heads")
        buffers[f"text_encoder{mark}.bert.embeddings.position_ids"] = np.arange(max_positions)[None]
    entries += expand(
        (("itm_head", "matching_head", LINEAR), ("temp", "temperature/value", TENSOR)), "", "params/", "heads"
    )
    entries += [
        Entry("image_queue", ("queue/image",), TRANSPOSED, "queue"),
        Entry("text_queue", ("queue/text",), TRANSPOSED, "queue"),
        Entry("queue_ptr", ("queue/pointer",), POINTER, "queue"),
        Entry("idx_queue", ("queue/ids",), IDS, "queue ids"),
        Entry("cbalign.codebook.codes", ("params/codebook/codes",), SAME, "codebook"),
    ]
    return Table(
        "ALBEF or TCL",
        tuple(entries),
        required=frozenset({"image", "text", "fusion", "heads"}),
        spellings=(
            (r"^(text_encoder(?:_m)?)\.(embeddings|encoder)\.", r"\1.bert.\2."),
            (r"^cbalign\.idx_queue$", "idx_queue"),
        ),
        unused=((r"text_encoder(_m)?\.bert\.embeddings\.position_ids", "counts 0, 1, 2, ..."),),
        initialised=(r"codebook/codes", r"masked_token_head/.*"),
        buffers=buffers,
    )


# (source, pattern of a tensor's name that identifies it), tried in this order.
_SIGNATURES = (
    ("albef", r"^visual_encoder\.patch_embed\.proj\.weight$"),
    ("deit", r"(^|\.)(dist_token|distillation_token)$"),
    ("vit", r"(^|\.)(patch_embed\.proj|patch_embeddings\.projection)\.weight$"),
    ("bert", r"(^|\.)word_embeddings\.weight$"),
)


def looks_like(names) -> str:
    """The source that tensors of these names probably come from, or ""."""
    names = [re.sub(r"^module\.", "", name) for name in names]
    return next((source for source, pattern in _SIGNATURES if any(re.search(pattern, name) for name in names)), "")


def count_layers(names, pattern: str) -> int:
    """The number of layers among tensor names: the highest number in the pattern's group, plus one."""
    numbers = [int(match.group(1)) for name in names if (match := re.search(pattern, name))]
    return max(numbers, default=-1) + 1
