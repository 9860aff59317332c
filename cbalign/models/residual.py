"""The gradient of a residual stream, computed once for all that read it."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def store_gradient(x):
    """The identity; its gradient is written to memory on CPUs before anything reads it.

    Each block of a pre-norm transformer adds to the gradient of the residual stream. XLA's CPU backend fuses that chain
    of additions into every one of its readers, so that the backward pass grows with the square of the depth: without
    this, a step of ViT-B/16 takes 1.3 times as long. It does not fuse across loops, and removes optimization barriers
    before it fuses; so the gradient passes a loop of one iteration, whose number XLA cannot know. Elsewhere nothing is
    added.

    Args:
      x: [b, n, width] of any float type.
    """
    return x


def _forward(x):
    return x, x[:1, :1, :1]


def _backward(corner, gradient):
    return (jax.lax.platform_dependent(gradient, corner, cpu=_pass_loop, default=lambda gradient, corner: gradient),)


def _pass_loop(gradient, corner):
    # XLA simplifies neither 0 * x, which is NaN for an infinite x, nor what depends on it.
    one = 1 + 0 * corner
    count = one.astype(jnp.int32).reshape(())
    return jax.lax.while_loop(
        lambda carry: carry[0] < count, lambda carry: (carry[0] + 1, carry[1] * one), (0, gradient)
    )[1]


store_gradient.defvjp(_forward, _backward)
