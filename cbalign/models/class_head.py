"""The head over classes that NLVR2 and SNLI-VE share."""

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.attention import dense


class ClassHead(nn.Module):
    """Linear, ReLU, linear; in float32."""

    classes: int
    init_std: float = 0.02

    @nn.compact
    def __call__(self, x):
        """x: [b, width] -> float32 logits [b, classes]."""
        x = dense(x.shape[-1], init_std=self.init_std, dtype=jnp.float32, name="hidden")(x)
        return dense(self.classes, init_std=self.init_std, dtype=jnp.float32, name="output")(nn.relu(x))
