"""The configuration: every field with its default and meaning, loading, overriding and checking.

A config file is Python with a function `get_config()` that starts from `base_config()` and changes a few lines. The
defaults are the paper's full-size pretraining. A name the base does not have, another type or a value out of range is
an error before anything is built.
"""

import ast
import difflib
import importlib.util
import json
import pathlib
import re

from ml_collections import ConfigDict

from cbalign.errors import UserError

CONTRAST_TERMS = ("i2t", "t2i", "i2i", "t2t")
TASKS = ("pretrain", "retrieval", "vqa", "nlvr2_pretrain", "nlvr2", "snli_ve")
# Those that contrast with queues and match; what the config says of queues and negatives is for them.
QUEUE_TASKS = ("pretrain", "retrieval")


def base_config() -> ConfigDict:
    """The full-size pretraining of the paper; the one list of fields there is."""
    c = ConfigDict()
    c.task = "pretrain"  # or retrieval, vqa, nlvr2_pretrain (text assignment), nlvr2, snli_ve
    c.seed = 0  # of everything random: initial weights, data order, augmentation, dropout, masks, negatives

    c.data = ConfigDict()
    # A builder (emoji, scenes, scenes/tiny, coco_karpathy), the folder `cbalign data import` wrote, or a mixture of them
    # with the passes an epoch makes over each: "coco_karpathy+visual_genome*0.5".
    c.data.name = "emoji"
    c.data.dir = ""  # where built data sets lie; "" is TFDS's default (TFDS_DATA_DIR, or ~/tensorflow_datasets)
    c.data.train_split = "train"
    c.data.image_size = 256  # pixels
    c.data.max_tokens = 25  # text length with [CLS]; longer captions are cut
    c.data.vocabulary = "bert-base-uncased"  # hub name, folder or vocab.txt; "" trains one on the training captions
    c.data.vocabulary_size = 30522  # of a vocabulary that is trained; at most that many word pieces
    c.data.crop_scale = (0.2, 1.0)  # share of the picture's area a random resized crop keeps
    c.data.flip = True  # mirror half of the pictures
    c.data.rand_augment = True  # two of ten operations at magnitude 7
    c.data.color = (0.0, 0.0, 0.0)  # probabilities of colour jitter, greyscale and blur (TCL: 0.8, 0.2, 0.5)
    c.data.second_view = True  # the teacher sees a second augmentation of the picture
    c.data.threads = 0  # of the input pipeline; 0 leaves it to tf.data
    c.data.max_bad_share = 0.01  # of samples whose records are bad and replaced; beyond it a run stops

    c.model = ConfigDict()
    c.model.patch_size = 16  # pixels
    c.model.image_width = 768
    c.model.image_depth = 12
    c.model.image_heads = 12
    c.model.text_width = 768  # of text and fusion layers
    c.model.text_depth = 6
    c.model.text_heads = 12
    c.model.fusion_depth = 6
    c.model.mlp_ratio = 4
    c.model.max_positions = 512  # position embeddings of the text encoder
    c.model.embed_dim = 256  # d of the joint space
    c.model.dropout = 0.1  # in text and fusion layers
    c.model.init_std = 0.02  # of initial weights
    c.model.dtype = "float32"  # of the encoders' products: float32 or bfloat16; all else is float32, whatever the chip
    c.model.remat = False  # keep only the inputs of blocks for the backward pass; same numbers, less memory, more time

    c.init = ConfigDict()  # where a new run starts from; a run with checkpoints of its own goes on from those
    c.init.checkpoint = ""  # workdir, or one of its checkpoints: its whole state, step and optimizer included
    c.init.weights = ()  # folders of `cbalign convert` or `export`, or a workdir: parameters; each gives other ones

    c.contrast = ConfigDict()  # L_ica
    c.contrast.temperature = 0.07  # at the start
    c.contrast.learn_temperature = True  # False keeps it where it starts
    c.contrast.alpha = 0.4  # weight of the teacher's soft targets
    c.contrast.alpha_ramp_steps = -1  # from 0 to alpha over that many steps; -1 is one epoch
    c.contrast.terms = CONTRAST_TERMS  # which of the four are on
    c.contrast.soft_intra = True  # soft targets in i2i and t2t too (TCL: hard)
    c.contrast.joint_positives = False  # all keys of the same id are positives, not the pair's own alone
    c.contrast.mask_empty = False  # leave out queue slots never written (ALBEF uses their random vectors)

    c.codebook = ConfigDict()  # L_code
    c.codebook.num_codes = 4000  # K
    c.codebook.temperature = 0.1  # tau_c of the code probabilities; 0 ties it to the contrastive one
    c.codebook.solver = "ipot"  # ipot or sinkhorn
    c.codebook.beta = 0.5  # IPOT's proximal step
    c.codebook.iterations = 50  # of the solver (SwAV's Sinkhorn: 3)
    c.codebook.epsilon = 0.05  # Sinkhorn's entropic weight
    c.codebook.teacher = True  # the transport assigns the teacher's features; False: the student's own
    c.codebook.ot_weight = 1.0  # of L_ot within L_code
    c.codebook.queue_rows = 0  # newest queue features that join the batch in the transport
    c.codebook.freeze_steps = 0  # first steps in which the codes do not move

    c.queue = ConfigDict()
    c.queue.size = 65536  # Q, a multiple of the global batch

    c.teacher = ConfigDict()
    c.teacher.momentum = 0.995
    c.teacher.dropout = True  # ALBEF leaves the teacher's dropout on

    c.itm = ConfigDict()
    c.itm.group_size = 64  # pairs among which hard negatives are sought (ALBEF: one device's batch)

    c.mlm = ConfigDict()
    c.mlm.probability = 0.15
    c.mlm.max_predictions = 8  # masked tokens per text, at most

    c.vqa = ConfigDict()  # of the task vqa
    c.vqa.answer_tokens = 10  # length of an answer with [CLS] and [SEP]; longer ones are cut
    c.vqa.answers_per_question = 10  # distinct answers to one question that are trained on, the most frequent
    c.vqa.rank_top_k = 128  # answers scored in full, of those with the likeliest first token

    c.loss_weights = ConfigDict()  # 0 leaves a loss out altogether
    c.loss_weights.mlm = 1.0
    c.loss_weights.itm = 1.0
    c.loss_weights.ica = 1.0
    c.loss_weights.code = 1.0

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 1e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.warmup_learning_rate = 1e-5  # at step 0
    c.optimizer.warmup_steps = 2000
    c.optimizer.schedule = "cosine"  # cosine (smooth, per step) or albef (stairs, then constant within an epoch)
    c.optimizer.weight_decay = 0.02
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.eps = 1e-8
    c.optimizer.clip_norm = 0.0  # global norm of the gradient; 0 is no clipping
    # (pattern, learning-rate factor, weight-decay factor); a parameter belongs to the first that matches its name.
    # As in ALBEF biases and norms are not decayed, embeddings are; the temperature, which ALBEF decays as well, is
    # left alone here, and the codes are, because they are normalised before every use.
    c.optimizer.groups = (
        ("temperature/.*", 1.0, 0.0),
        ("codebook/.*", 1.0, 0.0),
        (".*/(bias|scale)", 1.0, 0.0),
        (".*", 1.0, 1.0),
    )

    c.train = ConfigDict()
    c.train.batch_size = 512  # pairs over all devices (N)
    c.train.microbatches = 1  # parts each device cuts its pairs into for the gradient; same numbers, less memory
    c.train.steps = 0  # exactly one of steps and epochs is set
    c.train.epochs = 30
    c.train.log_steps = 50
    c.train.eval_steps = 0  # 0: at the end only
    c.train.checkpoint_steps = 1000
    c.train.keep = 2  # newest checkpoints kept, beside the best

    c.eval = ConfigDict()
    c.eval.splits = ("val",)  # evaluated during training; settings are chosen on these
    c.eval.best_split = ""  # the split whose mean contrastive recall tells the best checkpoint; "" keeps none
    c.eval.batch_size = 256
    c.eval.captions_per_image = 0  # texts in the gallery for each picture; 0 takes all
    c.eval.rerank_top_k = 16
    c.eval.best_score = "contrastive"  # recalls by that score tell the best checkpoint; itm and sum re-rank every time
    c.eval.token_megabytes = 2048  # image tokens of a gallery, or text tokens, beyond that are kept in bfloat16
    c.eval.weights = "student"  # student, or teacher for the moving average
    c.eval.baselines = True  # nearest neighbour on pixels, bag of words

    c.protocol = ConfigDict()  # of the published figure an evaluation is to stand beside; what differs from it is told
    c.protocol.name = ""  # "" for none
    c.protocol.task = "pretrain"  # of the run whose weights are evaluated
    c.protocol.trained_on = ""  # data set of that run; "" for any
    c.protocol.data = ""  # the data set it is tested on
    c.protocol.image_size = 0  # pixels
    return c.lock()


def load_config(path: str, overrides: list[str] = ()) -> ConfigDict:
    """Runs a config file's `get_config()`, applies overrides and checks the result.

    Args:
      path: a Python file.
      overrides: "a.b=value" each; the value is Python, or a plain word where the field is a string.

    Raises:
      UserError: no such file, no get_config, an unknown name, a wrong type, a value out of range.
    """
    config = _run_file(path)
    for override in overrides:
        _apply(config, override)
    check_config(config)
    return config


def derived_from(file: str, name: str) -> ConfigDict:
    """The config of the file `name` beside `file`, for a config that changes a few lines of another one."""
    return _run_file(str(pathlib.Path(file).parent / name))


def _run_file(path: str) -> ConfigDict:
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"no config file {path}; the ones that come with cbalign lie in configs/")
    spec = importlib.util.spec_from_file_location("cbalign_config_file", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config()
    except (AttributeError, KeyError, TypeError, SyntaxError, NameError, ImportError) as error:
        raise UserError(f"config file {path}: {_first_line(error)}") from error


def _first_line(error) -> str:
    # ConfigDict's message for an unknown name lists every field there is; its first sentence and last line will do.
    text = str(error).strip('"').replace("\\n", "\n")
    hint = re.search(r"Did you mean .*", text)
    return text.splitlines()[0].partition(" Other fields present")[0] + (f" {hint.group(0)}" if hint else "")


def field_names(config: ConfigDict, prefix: str = "") -> list[str]:
    """All dotted names of a config."""
    names = []
    for name in config:
        inner = config[name]
        names += field_names(inner, f"{prefix}{name}.") if isinstance(inner, ConfigDict) else [prefix + name]
    return names


def _apply(config: ConfigDict, override: str) -> None:
    """Applies one "a.b=value"."""
    name, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--config.{override} has no value; write --config.{override}=VALUE")
    if name not in field_names(config):
        near = difflib.get_close_matches(name, field_names(config), n=1)
        raise UserError(f"no config field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    *path, last = name.split(".")
    section = config
    for part in path:
        section = section[part]
    section[last] = _parse(name, text, section[last])


def _parse(name: str, text: str, current):
    """Turns the text of an override into a value of the field's type."""
    if isinstance(current, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        if isinstance(current, tuple):
            return tuple(word.strip() for word in text.split(",") if word.strip())
        value = text
    if isinstance(current, tuple):
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(current):
        raise UserError(f"--config.{name}={text}: expected {type(current).__name__}, as in {current!r}")
    return value


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
        "seed", "codebook.temperature", "codebook.ot_weight", "codebook.queue_rows", "codebook.freeze_steps",
        "data.threads",
        "loss_weights.mlm", "loss_weights.itm", "loss_weights.ica", "loss_weights.code", "optimizer.weight_decay",
        "optimizer.final_learning_rate", "optimizer.warmup_learning_rate", "optimizer.warmup_steps",
        "optimizer.clip_norm", "train.steps", "train.epochs", "train.eval_steps", "eval.captions_per_image")},
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


def resolve_epochs(config: ConfigDict, *, steps_per_epoch: int) -> ConfigDict:
    """A copy in which durations given in epochs are steps: train.steps and contrast.alpha_ramp_steps."""
    config = ConfigDict(config.to_dict(), convert_dict=True).unlock()
    if not config.train.steps:
        config.train.steps = config.train.epochs * steps_per_epoch
        config.train.epochs = 0
    if config.contrast.alpha_ramp_steps < 0:
        config.contrast.alpha_ramp_steps = steps_per_epoch
    return config.lock()


def to_json(config: ConfigDict) -> str:
    """Readable JSON of the whole config."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """The config a run wrote; fields that later versions added take their defaults."""
    config = base_config()
    stored = json.loads(text)

    def merge(section, values, prefix):
        for name, value in values.items():
            if name not in section:
                raise UserError(f"the stored config has a field {prefix}{name} that this version does not know")
            if isinstance(section[name], ConfigDict):
                merge(section[name], value, f"{prefix}{name}.")
            else:
                current = section[name]
                section[name] = _tuples(value) if isinstance(current, tuple) else value

    merge(config, stored, "")
    return config


def _tuples(value):
    return tuple(_tuples(x) for x in value) if isinstance(value, list) else value
