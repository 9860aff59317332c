"""ALBEF's maps of cross-attention, in PyTorch with autograd, on the modules of `tests.peers.albef`.

Written from ALBEF's `visualization.ipynb`: the attention probabilities of one layer with cross-attention times their
gradient of the logit of "match" clamped at zero, the image's [CLS] dropped, averaged over heads, masked by the text.
"""

import torch
from torch import nn


def _attend(block, queries, context, mask, heads):
    """(output before residual and norm, probabilities [b, heads, q, k])."""
    module = block.self

    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    query, key, value = split(module.query(queries)), split(module.key(context)), split(module.value(context))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    probabilities = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    probabilities.retain_grad()
    return (probabilities @ value).transpose(1, 2).flatten(2), probabilities


def _norm(module, x):
    return nn.functional.layer_norm(x, x.shape[-1:], module.weight, module.bias, 1e-12)


def _layer(layer, x, mask, image, heads):
    mixed, _ = _attend(layer.attention, x, x, mask, heads)
    x = _norm(layer.attention.output.LayerNorm, layer.attention.output.dense(mixed) + x)
    probabilities = None
    if image is not None:
        everywhere = torch.ones(1, 1, 1, image.shape[1], dtype=torch.bool)
        mixed, probabilities = _attend(layer.crossattention, x, image, everywhere, heads)
        x = _norm(layer.crossattention.output.LayerNorm, layer.crossattention.output.dense(mixed) + x)
    hidden = layer.output.dense(nn.functional.gelu(layer.intermediate.dense(x)))
    return _norm(layer.output.LayerNorm, hidden + x), probabilities


def _fused(albef, pixels, ids, *, heads, text_depth):
    """(states [1, L, w], attention of each layer, None for text layers)."""
    bert, mask = albef.text_encoder.bert, ids != 0
    embeddings = bert.embeddings
    x = (
        embeddings.word_embeddings(ids)
        + embeddings.position_embeddings.weight[: ids.shape[1]]
        + embeddings.token_type_embeddings.weight[0]
    )
    x, image = _norm(embeddings.LayerNorm, x), albef.visual_encoder(pixels)
    kept = []
    for number, layer in enumerate(bert.encoder.layer):
        x, probabilities = _layer(layer, x, mask[:, None, None], image if number >= text_depth else None, heads)
        kept.append(probabilities)
    return x, kept


def maps(albef, pixels, ids, *, heads, text_depth, block):
    """(float32 [L, patches], logits [2]) of one image, normalised float [1, 3, S, S], and one text int [1, L]."""
    x, kept = _fused(albef, pixels, ids, heads=heads, text_depth=text_depth)
    logits = albef.itm_head(x[:, 0])
    logits[:, 1].sum().backward()
    cams, gradients = kept[block], kept[block].grad
    shown = cams[:, :, :, 1:] * gradients[:, :, :, 1:].clamp(0) * (ids != 0)[:, None, :, None]
    return shown[0].mean(0).detach().numpy(), logits[0].detach().numpy()


def masked_word_map(albef, pixels, ids, place, mask_id, *, heads, text_depth, block):
    """float32 [patches]: the attention of one token, masked, by its gradient of the token's own log-probability."""
    masked = ids.clone()
    masked[0, place] = mask_id
    x, kept = _fused(albef, pixels, masked, heads=heads, text_depth=text_depth)
    logits = albef.text_encoder.cls(x)  # transformers' head, tied to the word embeddings
    logits[0, place].log_softmax(-1)[ids[0, place]].backward()
    cams, gradients = kept[block][0, :, place, 1:], kept[block].grad[0, :, place, 1:]
    return (cams * gradients.clamp(0)).mean(0).detach().numpy()
