"""A config small enough to train within a test."""

from cbalign.config import base_config, check_config

# A step that leaves the parameters and the teacher as they are; tests that share it share the compiled program, too.
STILL = {
    "train__steps": 1,
    "optimizer__learning_rate": 1e-30,
    "optimizer__warmup_learning_rate": 0.0,
    "optimizer__final_learning_rate": 0.0,
    "optimizer__weight_decay": 0.0,
    "teacher__momentum": 1.0,
}


def tiny_config(**changes):
    """A few steps of a very small model on `scenes/tiny`, images of 32 pixels.

    Args:
      **changes: fields by name with "__" for the dot, as in `data__dir=...`; `data.dir` should be the fixture
        `tfds_dir` where the data set is read.

    Returns:
      The checked config.
    """
    c = base_config()
    c.data.name = "scenes/tiny"
    c.data.image_size, c.data.max_tokens = 32, 12
    c.data.vocabulary, c.data.vocabulary_size = "", 200
    for tower in ("image", "text"):
        c.model[f"{tower}_width"], c.model[f"{tower}_depth"], c.model[f"{tower}_heads"] = 32, 1, 2
    c.model.fusion_depth, c.model.embed_dim, c.model.dropout = 1, 32, 0.0
    c.model.max_positions, c.model.patch_size = 12, 8
    c.codebook.num_codes, c.codebook.iterations = 32, 5
    c.queue.size = 64
    c.mlm.max_predictions = 2
    c.itm.group_size = 16
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 1e-3, 1
    c.train.batch_size, c.train.steps, c.train.epochs = 16, 4, 0
    c.eval.splits, c.eval.batch_size, c.eval.captions_per_image = ("val",), 32, 1
    for name, value in changes.items():
        *path, last = name.split("__")
        section = c
        for part in path:
            section = section[part]
        section[last] = value
    check_config(c)
    return c
