"""ALBEF's modules under ALBEF's names, in PyTorch, for state dicts in the released layout.

Written from the module structure of ALBEF's `models/vit.py`, `models/xbert.py` and `models/model_pretrain.py`; the text
layers are those of transformers. Only the image encoder has a forward pass here; `albef_maps` and `codis` run the
layers of the others.
"""

import torch
import transformers
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """timm's names; `[b, 3, S, S] -> [b, n, width]`."""

    def __init__(self, size, patch, width, depth, heads):
        super().__init__()
        self.patch_embed = PatchEmbed(width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def text_encoder(sizes):
    """ALBEF's `BertForMaskedLM` for a cbalign model's sizes: cross-attention in the fusion layers only."""
    config = transformers.BertConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.text_width,
        num_attention_heads=sizes.text_heads,
        num_hidden_layers=sizes.text_depth + sizes.fusion_depth,
        intermediate_size=sizes.mlp_ratio * sizes.text_width,
        max_position_embeddings=sizes.max_positions,
        is_decoder=True,
        add_cross_attention=True,
    )
    encoder = transformers.BertForMaskedLM(config)
    for i, layer in enumerate(encoder.bert.encoder.layer):
        if i < sizes.text_depth:
            del layer.crossattention
        else:
            for name in ("key", "value"):
                setattr(layer.crossattention.self, name, nn.Linear(sizes.image_width, sizes.text_width))
    encoder.bert.embeddings.register_buffer("position_ids", torch.arange(sizes.max_positions)[None], persistent=True)
    return encoder


class Albef(nn.Module):
    """The state of ALBEF's pretraining model, or (`retrieval`) of its fine-tuned one, with a cbalign model's sizes."""

    def __init__(self, model, *, queue_size, retrieval=False):
        super().__init__()
        sizes = model.sizes
        for mark in ("", "_m"):
            encoder = text_encoder(sizes)
            modules = {
                "visual_encoder": VisionTransformer(
                    sizes.image_size, sizes.patch_size, sizes.image_width, sizes.image_depth, sizes.image_heads
                ),
                "text_encoder": encoder.bert if retrieval else encoder,
                "vision_proj": nn.Linear(sizes.image_width, model.embed_dim),
                "text_proj": nn.Linear(sizes.text_width, model.embed_dim),
            }
            for name, module in modules.items():
                setattr(self, name + mark, module)
        self.temp = nn.Parameter(torch.tensor(0.07))
        self.itm_head = nn.Linear(sizes.text_width, 2)
        for name in ("image_queue", "text_queue"):
            self.register_buffer(name, nn.functional.normalize(torch.randn(model.embed_dim, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.full((1,), 3, dtype=torch.long))
        if retrieval:
            ids = torch.full((1, queue_size), -100)
            ids[0, :3] = torch.tensor([7, 0, 12])
            self.register_buffer("idx_queue", ids)
