"""Classification of an image with a sentence from the fused [CLS] state (ALBEF's SNLI-VE)."""

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.alignment import AlignmentModel
from cbalign.models.attention import dense
from cbalign.models.bert import padding_mask


class ClassHead(nn.Module):
    """Linear, ReLU, linear; in float32."""

    classes: int
    init_std: float = 0.02

    @nn.compact
    def __call__(self, x):
        """x: [b, width] -> float32 logits [b, classes]."""
        x = dense(x.shape[-1], init_std=self.init_std, dtype=jnp.float32, name="hidden")(x)
        return dense(self.classes, init_std=self.init_std, dtype=jnp.float32, name="output")(nn.relu(x))


class EntailmentModel(AlignmentModel):
    """Image encoder, text encoder, fusion layers, a head over three classes."""

    def setup(self):
        super().setup()
        self.class_head = ClassHead(3, self.init_std)

    def classify(self, images, ids, *, deterministic: bool = True):
        """images: one of uint8 [b, S, S, 3], ids: int32 [b, L] -> float32 logits [b, 3]."""
        (image,) = images
        tokens = self.text_encoder(ids, deterministic=deterministic)
        fused = self.fusion_encoder(tokens, padding_mask(ids), self.image_encoder(image), deterministic=deterministic)
        return self.class_head(fused[:, 0])

    def __call__(self, image, ids):
        """Touches every parameter of this task; for initialisation."""
        return self.classify((image,), ids)
