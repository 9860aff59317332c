"""A model's methods compiled for evaluation, and bound to parameters on this process's devices."""

from __future__ import annotations

import functools
from typing import Any

import jax

from cbalign.distributed import devices
from cbalign.evaluation.retrieval import Functions


@functools.lru_cache(maxsize=4)
def compiled_methods(model: Any) -> dict:
    """The compiled methods of an `AlignmentModel`: {"image", "text", "match"}, with the parameters first.

    The other arguments are those of `Functions`.

    Cached, so that repeated evaluations in one process compile once.
    """

    def match(params, texts, rows, image_tokens):
        dtype = model.sizes.dtype

        def one_pair(tokens, ids, image):
            tokens, image = tokens[None].astype(dtype), image[None].astype(dtype)
            fused = model.apply({"params": params}, tokens, ids[None], image, 1, method="fuse")
            return model.apply({"params": params}, fused, method="match")[0]

        # Mapped over the texts only, so that the keys and values of an image are computed once for all its texts.
        one_image = jax.vmap(one_pair, in_axes=(0, 0, None))
        return jax.vmap(one_image)(texts["tokens"][rows], texts["ids"][rows], image_tokens)

    return {
        "image": jax.jit(lambda params, x: model.apply({"params": params}, x, method="encode_image")),
        "text": jax.jit(lambda params, x: model.apply({"params": params}, x, method="encode_text")),
        "match": jax.jit(match),
    }


def bind(functions: dict, params: Any) -> Functions:
    """Binds parameters to the compiled methods: rows are split over this process's devices, pairs over processes.

    Args:
      functions: from `compiled_methods`.
      params: the model's parameters, host arrays or replicated global arrays.
    """
    params = devices.copy_to_local(params)
    return Functions(
        encode_image=functools.partial(devices.spread_rows(functions["image"], whole=1), params),
        encode_text=functools.partial(devices.spread_rows(functions["text"], whole=1), params),
        hold=lambda tokens, ids: devices.copy_to_local({"tokens": tokens, "ids": ids}),
        match=functools.partial(devices.spread_rows(functions["match"], whole=2), params),
        temperature=float(params["temperature"]["value"]),
        process=(jax.process_index(), jax.process_count()),
        devices=jax.local_device_count(),
        combine=devices.sum_over_processes,
    )
