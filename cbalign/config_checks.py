"""What a config must hold, field by field and between fields, before anything is built."""

import re

from ml_collections import ConfigDict

from cbalign.errors import UserError

CONTRAST_TERMS = ("i2t", "t2i", "i2i", "t2t")
TASKS = ("pretrain", "retrieval", "vqa", "nlvr2_pretrain", "nlvr2", "snli_ve")
# Those that contrast with queues and match; what the config says of queues and negatives is for them.
QUEUE_TASKS = ("pretrain", "retrieval")

# Field -> (condition, what it must be).
_RANGES = {
    **{name: (lambda x: x > 0, "above 0") for name in (
        "data.image_size", "data.vocabulary_size", "model.patch_size", "model.image_width", "model.image_depth",
        "model.image_heads", "model.text_width", "model.text_depth", "model.text_heads", "model.fusion_depth",
        "model.mlp_ratio", "model.max_positions", "model.embed_dim", "model.init_std", "codebook.num_codes",
        "codebook.beta", "codebook.iterations", "codebook.epsilon", "queue.size", "mlm.max_predictions",
        "optimizer.learning_rate", "optimizer.eps", "train.batch_size", "train.microbatches", "train.log_steps",
        "train.checkpoint_steps",
        "train.keep", "eval.batch_size", "eval.rerank_top_k", "eval.token_megabytes", "vqa.answers_per_question", "vqa.rank_top_k")},
    **{name: (lambda x: x >= 0, "0 or more") for name in (
        "codebook.temperature", "codebook.ot_weight", "codebook.queue_rows", "codebook.freeze_steps", "data.threads",
        "loss_weights.mlm", "loss_weights.itm", "loss_weights.ica", "loss_weights.code", "optimizer.weight_decay",
        "optimizer.final_learning_rate", "optimizer.warmup_learning_rate", "optimizer.warmup_steps",
        "optimizer.clip_norm", "model.image_position_std", "train.steps", "train.epochs", "train.eval_steps", "eval.captions_per_image")},
    **{name: (lambda x: 0 <= x <= 1, "between 0 and 1") for name in (
        "contrast.alpha", "teacher.momentum", "mlm.probability", "data.max_bad_share")},
    **{name: (lambda x: 0 <= x < 1, "at least 0 and below 1") for name in (
        "model.dropout", "optimizer.b1", "optimizer.b2")},
    "contrast.temperature": (lambda x: 0.001 <= x <= 0.5, "between 0.001 and 0.5"),
    "contrast.alpha_ramp_steps": (lambda x: x >= -1, "-1 (one epoch), or 0 or more"),
    "contrast.terms": (lambda x: x and set(x) <= set(CONTRAST_TERMS), f"one or more of {', '.join(CONTRAST_TERMS)}"),
    "codebook.solver": (lambda x: x in ("ipot", "sinkhorn"), "ipot or sinkhorn"),
    "optimizer.schedule": (lambda x: x in ("cosine", "albef"), "cosine or albef"),
    "eval.best_score": (lambda x: x in ("contrastive", "itm", "sum"), "contrastive, itm or sum"),
    "eval.weights": (lambda x: x in ("student", "teacher"), "student or teacher"),
    "model.dtype": (lambda x: x in ("float32", "bfloat16"), "float32 or bfloat16"),
    "itm.group_size": (lambda x: x >= 2, "2 or more: a pair needs another one as its negative"),
    "data.max_tokens": (lambda x: x >= 3, "3 or more"),
    "data.crop_scale": (lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1, "(low, high) with 0 < low <= high <= 1"),
    "data.color": (lambda x: len(x) == 3 and all(0 <= p <= 1 for p in x), "three probabilities"),
    "vqa.answer_tokens": (lambda x: x >= 3, "3 or more"),
    "seed": (lambda x: 0 <= x < 2**32, "at least 0 and below 2**32"),
    "task": (lambda x: x in TASKS, f"one of {', '.join(TASKS)}"),
}


def check_config(config: ConfigDict) -> None:
    """Checks ranges and what must hold between fields; device counts are checked when a run starts."""
    for name, (holds, wanted) in _RANGES.items():
        value = config
        for part in name.split("."):
            value = value[part]
        try:
            fine = holds(value)
        except TypeError:
            fine = False
        if not fine:
            raise UserError(f"config field {name} is {value!r}; it must be {wanted}")
    _check_relations(config)


def _check_relations(c: ConfigDict) -> None:
    rules = [
        (c.data.image_size % c.model.patch_size == 0,
         f"data.image_size={c.data.image_size} is not a multiple of model.patch_size={c.model.patch_size}"),
        (c.model.image_width % c.model.image_heads == 0,
         f"model.image_heads={c.model.image_heads} does not divide model.image_width={c.model.image_width}"),
        (c.model.text_width % c.model.text_heads == 0,
         f"model.text_heads={c.model.text_heads} does not divide model.text_width={c.model.text_width}"),
        (c.data.max_tokens <= c.model.max_positions,
         f"data.max_tokens={c.data.max_tokens} is more than model.max_positions={c.model.max_positions}"),
        (c.task not in QUEUE_TASKS or c.queue.size % c.train.batch_size == 0,
         f"queue.size={c.queue.size} is not a multiple of train.batch_size={c.train.batch_size}; use "
         f"{max(1, round(c.queue.size / c.train.batch_size)) * c.train.batch_size}"),
        (c.vqa.answer_tokens <= c.model.max_positions,
         f"vqa.answer_tokens={c.vqa.answer_tokens} is more than model.max_positions={c.model.max_positions}"),
        (c.train.batch_size % c.train.microbatches == 0,
         f"train.batch_size={c.train.batch_size} is not a multiple of train.microbatches={c.train.microbatches}"),
        # Gradient flows through both members of a negative pair, so a group of candidates lies in one micro-batch.
        (c.train.microbatches == 1 or not c.loss_weights.itm
         or c.train.batch_size // c.train.microbatches % c.itm.group_size == 0,
         f"a micro-batch has {c.train.batch_size // c.train.microbatches} pairs over all devices (train.batch_size / "
         f"train.microbatches), no multiple of itm.group_size={c.itm.group_size}; use fewer micro-batches, or smaller "
         "groups"),
        (c.codebook.queue_rows <= c.queue.size,
         f"codebook.queue_rows={c.codebook.queue_rows} is more than queue.size={c.queue.size}"),
        (c.codebook.teacher or not c.codebook.queue_rows,
         "codebook.queue_rows are features of the teacher; set it to 0 where codebook.teacher is False"),
        ((c.train.steps > 0) != (c.train.epochs > 0),
         f"set exactly one of train.steps={c.train.steps} and train.epochs={c.train.epochs}, the other to 0"),
        (any(c.loss_weights.values()), "all of loss_weights are 0; nothing would be learned"),
        (c.mlm.max_predictions < c.data.max_tokens,
         f"mlm.max_predictions={c.mlm.max_predictions} must be below data.max_tokens={c.data.max_tokens}"),
        (c.task != "retrieval" or not c.loss_weights.mlm,
         f"loss_weights.mlm={c.loss_weights.mlm}: the task retrieval has no masked tokens; set it to 0"),
        (not (c.init.checkpoint and c.init.weights),
         "init.checkpoint and init.weights are both set; a run starts from one of them"),
    ]
    for fine, message in rules:
        if not fine:
            raise UserError(f"config: {message}")
    for group in c.optimizer.groups:
        try:
            pattern, _, _ = group
            re.compile(pattern)
        except (TypeError, ValueError, re.error) as error:
            raise UserError(f"config field optimizer.groups: {group!r} is not (pattern, factor, factor)") from error
    decays = [decay for pattern, _, decay in c.optimizer.groups if re.fullmatch(pattern, "temperature/value")]
    if not c.contrast.learn_temperature and decays and decays[0]:
        raise UserError("config: contrast.learn_temperature is False, but optimizer.groups decays temperature/value")
