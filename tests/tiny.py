"""A config small enough to train within a test."""

from cbalign.config import base_config


def tiny_config(data_dir: str):
    """Four steps of a very small model on `scenes/tiny`, pictures of 32 pixels.

    Args:
      data_dir: where the built data set is kept, the fixture `tfds_dir`.
    """
    c = base_config()
    c.data.name, c.data.dir = "scenes/tiny", str(data_dir)
    c.data.image_size, c.data.max_tokens = 32, 12
    c.data.vocabulary, c.data.vocabulary_size = "", 200
    c.data.flip = c.data.rand_augment = c.data.second_view = False
    c.data.threads = 1
    for tower in ("image", "text"):
        c.model[f"{tower}_width"], c.model[f"{tower}_depth"], c.model[f"{tower}_heads"] = 32, 1, 2
    c.model.fusion_depth, c.model.embed_dim = 1, 32
    c.model.max_positions, c.model.patch_size = 12, 8
    c.codebook.num_codes, c.codebook.iterations = 32, 5
    c.queue.size = 64
    c.mlm.max_predictions = 2
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 1e-3, 1
    c.train.batch_size, c.train.steps, c.train.epochs = 16, 4, 0
    c.train.log_steps, c.train.eval_steps, c.train.checkpoint_steps = 1, 2, 2
    c.eval.splits, c.eval.best_split = ("val",), "val"
    c.eval.batch_size, c.eval.captions_per_image = 32, 1
    return c
