"""The configuration: every field with its default and meaning, loading and overriding.

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

from cbalign.config_checks import CONTRAST_TERMS, check_config
from cbalign.errors import UserError


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
    c.data.crop_scale = (0.2, 1.0)  # share of the image's area a random resized crop keeps
    c.data.flip = True  # mirror half of the images
    c.data.rand_augment = True  # two of ten operations at magnitude 7
    c.data.color = (0.0, 0.0, 0.0)  # probabilities of colour jitter, greyscale and blur (TCL: 0.8, 0.2, 0.5)
    c.data.second_view = True  # the teacher sees a second augmentation of the image
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
    c.model.image_position_std = 0.0  # of the image encoder's initial position embeddings; 0 is init_std
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
    c.eval.captions_per_image = 0  # texts in the gallery for each image; 0 takes all
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
