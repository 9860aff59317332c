"""The model of visual entailment (SNLI-VE): classifies an image and a sentence from the fused [CLS] state (ALBEF)."""

import flax.linen as nn

from cbalign.models.bert import padding_mask
from cbalign.models.class_head import ClassHead
from cbalign.models.towers import Sizes, fusion_tower, image_tower, text_tower

CLASSES = 3


class EntailmentModel(nn.Module):
    """Image encoder, text encoder, fusion layers, a head over three classes."""

    sizes: Sizes

    def setup(self):
        self.image_encoder = image_tower(self.sizes)
        self.text_encoder = text_tower(self.sizes)
        self.fusion_encoder = fusion_tower(self.sizes)
        self.class_head = ClassHead(CLASSES, self.sizes.init_std)

    def classify(self, images, ids, *, deterministic: bool = True):
        """images: one of uint8 [b, S, S, 3], ids: int32 [b, L] -> float32 logits [b, 3]."""
        (image,) = images
        tokens = self.text_encoder(ids, deterministic=deterministic)
        fused = self.fusion_encoder(
            tokens, padding_mask(ids), self.image_encoder(image), positions=1, deterministic=deterministic
        )
        return self.class_head(fused[:, 0])

    def __call__(self, image, ids):
        """Touches every parameter; for initialisation."""
        return self.classify((image,), ids)
