"""The alignment model of cbalign in PyTorch, for inference; opened by `transformers.AutoModel`.

    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = BertTokenizer.from_pretrained(FOLDER)
    images = model.preprocess([PIL.Image.open("truck.png")])
    ids = model.tokenize(tokenizer, ["a delivery truck"])
    similarity = model.encode_image(images) @ model.encode_text(ids).T

Parameters have cbalign's names and layouts, so that one file of weights serves both: kernels are [in, out].
"""

# A `forward` is described by its class.
# ruff: noqa: D102

import re

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def clean(text, max_words=30):
    """A caption as it was cleaned for training (ALBEF's `pre_caption`)."""
    text = re.sub(r"[,.'!?\"()*#:;~]", "", text.lower()).replace("-", " ").replace("/", " ")
    return " ".join(re.sub(r"\s{2,}", " ", text.replace("<person>", "person")).strip().split(" ")[:max_words])


def sparsemax(scores):
    """The point of the probability simplex nearest to each row of [n, K] (Martins & Astudillo, 2016)."""
    ordered = scores.sort(-1, descending=True).values
    sums = ordered.cumsum(-1) - 1
    places = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    size = (places * ordered > sums).sum(-1, keepdim=True)
    return (scores - sums.gather(-1, size - 1) / size).clamp(min=0)


class CbalignConfig(PretrainedConfig):
    """Sizes of the model, as cbalign's `Sizes` names them."""

    model_type = "cbalign"

    def __init__(
        self,
        image_size=32,
        patch_size=8,
        image_width=128,
        image_depth=3,
        image_heads=4,
        vocab_size=3000,
        max_positions=10,
        max_tokens=10,
        text_width=128,
        text_depth=2,
        text_heads=4,
        fusion_depth=1,
        mlp_ratio=4,
        embed_dim=128,
        num_codes=500,
        code_temperature=0.1,
        max_words=30,
        embed=False,
        embed_temperature=0.1,
        **rest,
    ):
        super().__init__(**rest)
        self.image_size, self.patch_size = image_size, patch_size
        self.image_width, self.image_depth, self.image_heads = image_width, image_depth, image_heads
        self.vocab_size, self.max_positions, self.max_tokens = vocab_size, max_positions, max_tokens
        self.text_width, self.text_depth, self.text_heads = text_width, text_depth, text_heads
        self.fusion_depth, self.mlp_ratio = fusion_depth, mlp_ratio
        self.max_words = max_words
        self.embed_dim, self.num_codes, self.code_temperature = embed_dim, num_codes, code_temperature
        self.embed, self.embed_temperature = embed, embed_temperature


class Dense(nn.Module):
    """A linear layer with its kernel [in, out]."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return x @ self.kernel + self.bias


class Norm(nn.Module):
    """Layer norm."""

    def __init__(self, width, epsilon):
        super().__init__()
        self.scale, self.bias, self.epsilon = (
            nn.Parameter(torch.empty(width)),
            nn.Parameter(torch.empty(width)),
            epsilon,
        )

    def forward(self, x):
        return functional.layer_norm(x, self.scale.shape, self.scale, self.bias, self.epsilon)


class Embed(nn.Module):
    """An embedding table."""

    def __init__(self, count, width):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(count, width))


class Attention(nn.Module):
    """Multi-head attention from `width` channels to a context of `context` channels."""

    def __init__(self, width, heads, context=None):
        super().__init__()
        self.heads = heads
        self.query, self.output = Dense(width, width), Dense(width, width)
        self.key, self.value = Dense(context or width, width), Dense(context or width, width)

    def forward(self, x, context=None, mask=None):
        """x: [b, q, width]; context: [b, k, any width], x where None; mask: bool [b, k], True where attended to."""
        context = x if context is None else context

        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mask = None if mask is None else mask[:, None, None, :]
        query, key, value = split(self.query(x)), split(self.key(context)), split(self.value(context))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width, ratio):
        super().__init__()
        self.intermediate, self.output = Dense(width, ratio * width), Dense(ratio * width, width)

    def forward(self, x):
        return self.output(functional.gelu(self.intermediate(x)))


class ImageLayer(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, c):
        super().__init__()
        self.attention_norm, self.mlp_norm = Norm(c.image_width, 1e-6), Norm(c.image_width, 1e-6)
        self.attention, self.mlp = Attention(c.image_width, c.image_heads), Mlp(c.image_width, c.mlp_ratio)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class ImageEncoder(nn.Module):
    """A vision transformer: [b, 3, S, S] -> [b, 1 + n, width]."""

    def __init__(self, c):
        super().__init__()
        patches, self.patch_size = (c.image_size // c.patch_size) ** 2, c.patch_size
        self.patch_embedding = Dense(3 * c.patch_size**2, c.image_width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, c.image_width))
        self.position_embedding = nn.Parameter(torch.empty(1, 1 + patches, c.image_width))
        self.norm, self.depth = Norm(c.image_width, 1e-6), c.image_depth
        for i in range(c.image_depth):
            self.add_module(f"layer_{i}", ImageLayer(c))

    def forward(self, images):
        b, p, side = images.shape[0], self.patch_size, images.shape[-1] // self.patch_size
        # Pixels of a patch by row, column and channel.
        patches = images.reshape(b, 3, side, p, side, p).permute(0, 2, 4, 3, 5, 1).reshape(b, side * side, -1)
        x = torch.cat([self.cls_token.expand(b, -1, -1), self.patch_embedding(patches)], dim=1)
        x = x + self.position_embedding
        for i in range(self.depth):
            x = getattr(self, f"layer_{i}")(x)
        return self.norm(x)


class TextLayer(nn.Module):
    """A post-norm transformer block, with cross-attention where it fuses."""

    def __init__(self, c, fuses=False):
        super().__init__()
        width = c.text_width
        self.attention, self.attention_norm = Attention(width, c.text_heads), Norm(width, 1e-12)
        if fuses:
            self.cross_attention = Attention(width, c.text_heads, c.image_width)
            self.cross_attention_norm = Norm(width, 1e-12)
        self.mlp, self.mlp_norm = Mlp(width, c.mlp_ratio), Norm(width, 1e-12)

    def forward(self, x, mask, context=None):
        x = self.attention_norm(x + self.attention(x, mask=mask))
        if context is not None:
            x = self.cross_attention_norm(x + self.cross_attention(x, context))
        return self.mlp_norm(x + self.mlp(x))


class Layers(nn.Module):
    """A stack of text or fusion layers."""

    def __init__(self, c, depth, fuses=False):
        super().__init__()
        self.depth = depth
        for i in range(depth):
            self.add_module(f"layer_{i}", TextLayer(c, fuses))

    def forward(self, x, mask, context=None):
        for i in range(self.depth):
            x = getattr(self, f"layer_{i}")(x, mask, context)
        return x


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normed."""

    def __init__(self, c):
        super().__init__()
        self.word, self.position = Embed(c.vocab_size, c.text_width), Embed(c.max_positions, c.text_width)
        self.token_type, self.norm = Embed(2, c.text_width), Norm(c.text_width, 1e-12)

    def forward(self, ids):
        x = self.word.embedding[ids] + self.position.embedding[None, : ids.shape[1]] + self.token_type.embedding[:1]
        return self.norm(x)


class TextEncoder(nn.Module):
    """The text layers over the embeddings: int64 [b, L], padded with 0 -> [b, L, width]."""

    def __init__(self, c):
        super().__init__()
        self.embeddings, self.layers = Embeddings(c), Layers(c, c.text_depth)

    def forward(self, ids):
        return self.layers(self.embeddings(ids), ids != 0)


class TokenHead(nn.Module):
    """The head for masked tokens, whose output layer is the word embeddings."""

    def __init__(self, c):
        super().__init__()
        self.transform, self.norm = Dense(c.text_width, c.text_width), Norm(c.text_width, 1e-12)
        self.bias = nn.Parameter(torch.empty(c.vocab_size))

    def forward(self, x, words):
        return self.norm(functional.gelu(self.transform(x))) @ words.T + self.bias


class Codes(nn.Module):
    """The codebook."""

    def __init__(self, c):
        super().__init__()
        self.codes = nn.Parameter(torch.empty(c.num_codes, c.embed_dim))


class Value(nn.Module):
    """The temperature of training."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.empty(()))


class CbalignModel(PreTrainedModel):
    """Image and text encoders with a shared embedding space, fusion layers, heads and codebook."""

    config_class = CbalignConfig
    main_input_name = "images"

    def __init__(self, config):
        super().__init__(config)
        self.image_encoder, self.text_encoder = ImageEncoder(config), TextEncoder(config)
        self.fusion_encoder = Layers(config, config.fusion_depth, fuses=True)
        self.image_projection = Dense(config.image_width, config.embed_dim)
        self.text_projection = Dense(config.text_width, config.embed_dim)
        self.matching_head, self.masked_token_head = Dense(config.text_width, 2), TokenHead(config)
        self.codebook, self.temperature = Codes(config), Value()
        self.post_init()

    def _init_weights(self, module):
        """Weights are always loaded."""

    def preprocess(self, images):
        """PIL images -> [n, 3, S, S], transparent ones on white, normalised."""
        from PIL import Image, ImageOps

        size, rows = self.config.image_size, []
        for image in images:
            image = ImageOps.exif_transpose(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            pixels = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            rows.append(torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).reshape(size, size, 3))
        x = torch.stack(rows).to(self.dtype).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(value, dtype=self.dtype).reshape(1, 3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
        return (x - mean) / std

    def tokenize(self, tokenizer, texts):
        """Texts -> int64 [n, L]: [CLS], the tokens, padding; there is no closing [SEP], as in training."""
        rows = tokenizer([clean(text, self.config.max_words) for text in texts], add_special_tokens=False)["input_ids"]
        ids = torch.zeros(len(rows), self.config.max_tokens, dtype=torch.int64)
        for i, row in enumerate(rows):
            row = [tokenizer.cls_token_id, *row][: self.config.max_tokens]
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    def encode_image(self, images):
        """[n, 3, S, S] from `preprocess` -> unit vectors [n, d]."""
        return self._feature(self.image_projection(self.image_encoder(images)[:, 0]))

    def encode_text(self, ids):
        """int64 [n, L] from `tokenize` -> unit vectors [n, d]."""
        return self._feature(self.text_projection(self.text_encoder(ids)[:, 0]))

    def _feature(self, projected):
        """[n, d] -> unit vectors; with `embed`, of the mixture of the codes that each is assigned to."""
        projected = functional.normalize(projected, dim=-1)
        if not self.config.embed:
            return projected
        codes = functional.normalize(self.codebook.codes, dim=-1)
        return functional.normalize(sparsemax(projected @ codes.T / self.config.embed_temperature) @ codes, dim=-1)

    def match(self, images, ids):
        """Probability that each text matches the image of the same row: [n]."""
        fused = self.fusion_encoder(self.text_encoder(ids), ids != 0, self.image_encoder(images))
        return self.matching_head(fused[:, 0]).softmax(-1)[:, 1]

    def codes(self, features):
        """Unit vectors [n, d] -> probabilities over the codebook [n, K]."""
        codes = functional.normalize(self.codebook.codes, dim=-1)
        # 0 stands for the temperature of the contrastive terms.
        return (features @ codes.T / (self.config.code_temperature or self.temperature.value)).softmax(-1)

    def forward(self, images=None, ids=None):
        """Features of images, of texts, or of both, with their cosines where both are given."""
        found = {}
        if images is not None:
            found["image_features"] = self.encode_image(images)
        if ids is not None:
            found["text_features"] = self.encode_text(ids)
        if len(found) == 2:
            found["similarity"] = found["image_features"] @ found["text_features"].T
        return found
