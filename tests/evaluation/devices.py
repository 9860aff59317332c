"""Evaluates retrieval on the number of devices XLA was told of, and writes what came out; a script of its own, since
the number of devices is fixed once JAX has started.

  python tests/evaluation/devices.py OUT.npz
"""

import sys

import jax
import numpy as np

from cbalign.distributed import devices
from cbalign.evaluation import encoders, reranking
from cbalign.evaluation.retrieval import evaluate_retrieval
from tests.evaluation.tiny_model import batches, functions, gallery, model_and_params


def main(out):
    model, params = model_and_params()
    bound, (images, ids, image_ids, text_ids) = functions(model, params), gallery(13, 22)
    # Batches that no number of devices divides.
    result = evaluate_retrieval(
        bound, batches(images, 5), ids, image_ids=image_ids, text_ids=text_ids, top_k=4, batch_size=7
    )
    image, text = bound.encode_image(images), bound.encode_text(ids)
    logits = reranking.match_pairs(
        bound,
        np.asarray(image["tokens"]),
        np.asarray(text["tokens"]),
        ids,
        np.arange(13 * 22),
        batch_size=7,
        token_bytes=1 << 30,
        progress=lambda *event: None,
    )
    np.savez(
        out,
        devices=jax.device_count(),
        features=image["feature"],
        logits=logits,
        recalls=[value for kind in ("contrastive", "itm", "sum") for value in result[kind].values()],
        pairs=spread_pairs(),
        **compiled_match(model, params, ids),
    )


def spread_pairs():
    """Rows that are a tuple of arrays, as the images of tasks with several are."""
    first, second = np.arange(5.0), 10 * np.arange(5.0)
    differ = devices.spread_rows(jax.jit(lambda pair, x: pair[1] - pair[0] + x), whole=0)
    return differ((first, second), np.ones(5))


def compiled_match(model, params, ids):
    """Over how many devices the compiled fusion is spread, and how often they have to talk to each other."""
    seen = {}

    def note(*arguments):
        text = encoders.compiled_methods(model)["match"].lower(*arguments).compile().as_text()
        seen["collectives"] = sum(text.count(word) for word in ("all-reduce", "all-gather", "collective-permute"))
        seen["spread"] = len(arguments[3].sharding.device_set)
        assert not arguments[3].sharding.is_fully_replicated or jax.device_count() == 1
        return arguments[3]

    held = devices.copy_to_local({"tokens": np.zeros((22, ids.shape[1], 16), np.float32), "ids": ids})
    devices.spread_rows(note, whole=2)(
        devices.copy_to_local(params), held, np.zeros((8, 2), np.int32), np.zeros((8, 10, 16), np.float32)
    )
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
