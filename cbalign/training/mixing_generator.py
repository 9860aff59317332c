"""A random generator for dropout masks that costs a fraction of threefry.

Keys are threefry's, and so are splitting and folding in. Only the bits differ: threefry hashes two words in 20 rounds,
some 50 operations a word, and the backward pass draws the mask again; here a word costs ten. The bits are a function of
key and position alone, also under `vmap`, which JAX's "rbg" generators are not: they draw for all keys from the first.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extended

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio: neighbouring positions start far apart
# Multipliers of the 32-bit mixer of least bias found by C. Wellons' search (hash-prospector, "lowbias32").
_FIRST, _SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def with_generator(key: jax.Array, generator: str) -> jax.Array:
    """The key, with its bits drawn by the named generator.

    Args:
      key: a threefry key, or keys.
      generator: "threefry", JAX's own, or "mixing".
    """
    return key if generator == "threefry" else jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def _threefry(words):
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def _bits(words, bit_width: int, shape):
    """Random unsigned integers of `bit_width` at the positions of an array; words: uint32 [2]."""
    if bit_width > 32:
        raise ValueError(f"the mixing generator draws at most 32 bits at a time, not {bit_width}")
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    x = place * _GOLDEN + words[0]
    x = (x ^ (x >> 16)) * _FIRST
    # The second word enters here, since with it at the start the streams of some keys would be shifts of one another.
    x ^= words[1]
    x = (x ^ (x >> 15)) * _SECOND
    return ((x ^ (x >> 16)) >> (32 - bit_width)).astype(f"uint{bit_width}")


_IMPLEMENTATION = extended.define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
    split=lambda words, shape: jax.random.key_data(jax.random.split(_threefry(words), shape)),
    random_bits=_bits,
    fold_in=lambda words, data: jax.random.key_data(jax.random.fold_in(_threefry(words), data)),
    name="cbalign_mixing",
    tag="mix",
)
