"""The image encoder: a vision transformer as DeiT and ALBEF build it (pre-norm, learned positions, [CLS] token)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.attention import FeedForward, MultiHeadAttention, layer_norm, per_block, precision_of
from cbalign.models.residual import store_gradient

# Mean and standard deviation of CLIP's training images, as used by ALBEF.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

LAYER_NORM_EPSILON = 1e-6


def normalise_image(image):
    """uint8 RGB [..., 3] -> float32, normalised by ALBEF's mean and standard deviation."""
    mean, std = jnp.asarray(IMAGE_MEAN), jnp.asarray(IMAGE_STD)
    shape = (1,) * (image.ndim - 1) + (3,)
    return (image.astype(jnp.float32) / 255.0 - mean.reshape(shape)) / std.reshape(shape)


class VitBlock(nn.Module):
    """Pre-norm transformer block."""

    heads: int
    mlp_ratio: int = 4
    init_std: float = 0.02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        """x: [b, n, width] -> [b, n, width]."""
        options = dict(init_std=self.init_std, dtype=self.dtype)
        x = store_gradient(x)
        normed = layer_norm(LAYER_NORM_EPSILON, "attention_norm")(x)
        x = x + MultiHeadAttention(x.shape[-1], self.heads, name="attention", **options)(normed.astype(self.dtype))
        x = store_gradient(x)
        normed = layer_norm(LAYER_NORM_EPSILON, "mlp_norm")(x)
        return x + FeedForward(self.mlp_ratio * x.shape[-1], name="mlp", **options)(normed.astype(self.dtype))


class VisionTransformer(nn.Module):
    """ViT with a final layer norm and without pooling (ALBEF `models/vit.py`); no dropout, no drop-path.

    Attributes:
      image_size: side of the square input in pixels; fixes the number of position embeddings.
      patch_size: side of a patch in pixels; must divide image_size.
      width, depth, heads: transformer sizes (B/16: 768, 12, 12).
      position_std: standard deviation of the initial position embeddings; 0 for `init_std`.
      remat: recompute each block's activations in the backward pass.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int = 4
    init_std: float = 0.02
    position_std: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, image):
        """Encodes images.

        Args:
          image: [b, image_size, image_size, 3], uint8 RGB, or float32 already normalised.

        Returns:
          [b, 1 + (image_size / patch_size)^2, width]; token 0 is [CLS].

        Raises:
          ValueError: the images are not of `image_size`.
        """
        if image.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(f"expected images [b, {self.image_size}, {self.image_size}, 3], found {image.shape}")
        if jnp.issubdtype(image.dtype, jnp.integer):
            image = normalise_image(image)
        normal = nn.initializers.truncated_normal(self.init_std)
        patches = self._patches(image.astype(self.dtype))
        x = nn.Dense(
            self.width, dtype=self.dtype, precision=precision_of(self.dtype), kernel_init=normal, name="patch_embedding"
        )(patches)
        cls = self.param("cls_token", normal, (1, 1, self.width))
        position_init = nn.initializers.truncated_normal(self.position_std or self.init_std)
        positions = self.param("position_embedding", position_init, (1, 1 + x.shape[1], self.width))
        cls = jnp.broadcast_to(cls, (x.shape[0], 1, self.width)).astype(self.dtype)
        x = jnp.concatenate([cls, x], axis=1) + positions.astype(self.dtype)
        for i in range(self.depth):
            block = VitBlock(self.heads, self.mlp_ratio, self.init_std, self.dtype, name=f"layer_{i}")
            x = per_block(self.remat, block, lambda block, x: block(x), x)
        return layer_norm(LAYER_NORM_EPSILON, "norm")(x).astype(self.dtype)

    def _patches(self, image):
        """[b, H, W, 3] -> [b, n, patch_size^2 * 3], for a strided convolution written as one matmul."""
        b, side, p = image.shape[0], self.image_size // self.patch_size, self.patch_size
        x = image.reshape(b, side, p, side, p, 3).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, side * side, p * p * 3)
