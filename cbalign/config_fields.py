"""Every field of the configuration: default, type (that of the default), meaning and range.

`cbalign.config` builds `base_config()` and the range checks from this table. The defaults are the paper's full-size
pretraining. Rules between fields are in `config.py`, rules of a task in the task's `check`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

CONTRAST_TERMS = ("i2t", "t2i", "i2i", "t2t")


@dataclasses.dataclass(frozen=True)
class Range:
    """The values a field may take.

    Attributes:
      holds: whether a value is one of them.
      wanted: the same in words, as in "must be above 0".
    """

    holds: Callable[[Any], bool]
    wanted: str


@dataclasses.dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
      default: its value in `base_config()`; values keep its type.
      meaning: what it does, with its unit.
      range: the values it may take; None where every value of the type will do.
    """

    default: Any
    meaning: str
    range: Range | None = None


def _one_of(*names: str) -> Range:
    return Range(lambda x: x in names, f"{', '.join(names[:-1])} or {names[-1]}")


_POSITIVE = Range(lambda x: x > 0, "above 0")
_NOT_NEGATIVE = Range(lambda x: x >= 0, "0 or more")
_SHARE = Range(lambda x: 0 <= x <= 1, "between 0 and 1")
_BELOW_ONE = Range(lambda x: 0 <= x < 1, "at least 0 and below 1")
_THREE_OR_MORE = Range(lambda x: x >= 3, "3 or more")
_NAMES = Range(lambda x: all(isinstance(name, str) for name in x), "names, as in ('a', 'b')")
_ZERO_OR_THREE = Range(lambda x: x == 0 or x >= 3, "0, or 3 or more")

# Fields outside any section.
_GENERAL = {
    "task": Field(
        "pretrain", "what is trained: pretrain, retrieval, vqa, nlvr2_pretrain (text assignment), nlvr2, snli_ve"
    ),
    "seed": Field(
        0,
        "of initial weights, data order, augmentation, dropout, masks and negatives",
        Range(lambda x: 0 <= x < 2**32, "at least 0 and below 2**32"),
    ),
    "rehearse": Field(False, "a miniature of the config instead of it, see `config_miniature.py`"),
}

_DATA = {
    # A mixture names the passes an epoch makes over each part: "coco_karpathy+visual_genome*0.5".
    "name": Field("emoji", "a builder, a folder that `cbalign data import` wrote, or a mixture of them"),
    "dir": Field("", "folder of the built data sets; empty: TFDS_DATA_DIR, or TFDS's default"),
    "train_split": Field("train", "split that is trained on, in TFDS's notation"),
    "epoch_over": Field(
        "images",
        "an epoch passes over the images, each with one of its captions drawn, or over the pairs of an image and a "
        "caption, as ALBEF's lists do",
        _one_of("images", "pairs"),
    ),
    "image_size": Field(256, "side of the square images in pixels", _POSITIVE),
    "max_tokens": Field(25, "text length including [CLS]; longer texts are cut", _THREE_OR_MORE),
    "max_words": Field(30, "words a text is cut to before that, as in ALBEF", _POSITIVE),
    "plain_rgb": Field(
        False,
        "read images as ALBEF does: not turned by EXIF, alpha dropped, more than 8 bits clipped; of official data sets",
    ),
    "vocabulary": Field("bert-base-uncased", "hub name, folder or vocab.txt; empty: trained on the training captions"),
    "vocabulary_size": Field(30522, "word pieces a trained vocabulary has at most", _POSITIVE),
    "crop_scale": Field(
        (0.2, 1.0),
        "range of the area share that a random resized crop keeps",
        Range(lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1, "(low, high) with 0 < low <= high <= 1"),
    ),
    "flip": Field(True, "mirror half of the images"),
    "rand_augment": Field(True, "apply two of ten operations at magnitude 7"),
    "color": Field(
        (0.0, 0.0, 0.0),
        "probabilities of colour jitter, greyscale and blur (TCL: 0.8, 0.2, 0.5)",
        Range(lambda x: len(x) == 3 and all(0 <= p <= 1 for p in x), "three probabilities"),
    ),
    "second_view": Field(True, "the teacher sees a second augmentation of the image"),
    "threads": Field(0, "of the input pipeline; 0: tf.data decides", _NOT_NEGATIVE),
    "max_bad_share": Field(0.01, "share of unreadable samples that are replaced before a run stops", _SHARE),
}

_MODEL = {
    "patch_size": Field(16, "side of a patch in pixels", _POSITIVE),
    "image_width": Field(768, "of the image encoder", _POSITIVE),
    "image_depth": Field(12, "layers of the image encoder", _POSITIVE),
    "image_heads": Field(12, "attention heads of the image encoder", _POSITIVE),
    "text_width": Field(768, "of text and fusion layers", _POSITIVE),
    "text_depth": Field(6, "layers of the text encoder", _POSITIVE),
    "text_heads": Field(12, "attention heads of text and fusion layers", _POSITIVE),
    "fusion_depth": Field(6, "layers with cross-attention to the image", _POSITIVE),
    "mlp_ratio": Field(4, "width of the hidden layer of an MLP, relative to that of its encoder", _POSITIVE),
    "max_positions": Field(512, "position embeddings of the text encoder", _POSITIVE),
    "embed_dim": Field(256, "d, the width of the joint embedding space", _POSITIVE),
    "dropout": Field(0.1, "in text and fusion layers", _BELOW_ONE),
    "dropout_generator": Field(
        "mixing", "of dropout's random bits; threefry, JAX's own, costs more", _one_of("mixing", "threefry")
    ),
    "init_std": Field(0.02, "standard deviation of the initial weights", _POSITIVE),
    "image_position_std": Field(0.0, "of the image encoder's initial position embeddings; 0: init_std", _NOT_NEGATIVE),
    # Everything but the encoders' matrix products is float32.
    "dtype": Field("float32", "of the encoders' matrix products", _one_of("float32", "bfloat16")),
    "remat": Field(False, "store only each block's inputs and recompute activations: less memory, more time"),
}

_INIT = {  # a run that has checkpoints of its own resumes from those
    "checkpoint": Field("", "workdir or checkpoint whose whole training state a new run starts from"),
    "weights": Field(
        (), "folders of `cbalign convert` or `export`, or workdirs: each gives some of the parameters", _NAMES
    ),
}

_CONTRAST = {  # L_ica
    "temperature": Field(0.07, "initial τ", Range(lambda x: 0.001 <= x <= 0.5, "between 0.001 and 0.5")),
    "learn_temperature": Field(True, "train τ; otherwise it stays as it starts"),
    "alpha": Field(0.4, "weight of the teacher's soft targets", _SHARE),
    "alpha_ramp_steps": Field(
        -1,
        "steps over which alpha rises from 0; -1: one epoch",
        Range(lambda x: x >= -1, "-1 (one epoch), or 0 or more"),
    ),
    "terms": Field(
        CONTRAST_TERMS,
        "contrastive terms that are on",
        Range(lambda x: x and set(x) <= set(CONTRAST_TERMS), f"one or more of {', '.join(CONTRAST_TERMS)}"),
    ),
    "soft_intra": Field(True, "soft targets in i2i and t2t as well (TCL: one-hot)"),
    "joint_positives": Field(False, "all keys with the pair's id are positives, not only its own"),
    "mask_empty": Field(False, "leave out queue entries that were never written (ALBEF uses their random vectors)"),
}

_CODEBOOK = {  # L_code
    "num_codes": Field(4000, "K", _POSITIVE),
    "temperature": Field(0.1, "τ_c of the code probabilities; 0: that of the contrastive terms", _NOT_NEGATIVE),
    "solver": Field("ipot", "of the transport problem", _one_of("ipot", "sinkhorn")),
    "beta": Field(0.5, "proximal step of IPOT", _POSITIVE),
    "iterations": Field(50, "of the solver (SwAV's Sinkhorn: 3)", _POSITIVE),
    "epsilon": Field(0.05, "entropic weight of Sinkhorn", _POSITIVE),
    "teacher": Field(True, "transport the teacher's features; otherwise the student's own"),
    "ot_weight": Field(1.0, "weight of L_ot within L_code", _NOT_NEGATIVE),
    "queue_rows": Field(0, "newest queue features that join the batch in the transport problem", _NOT_NEGATIVE),
    "freeze_steps": Field(0, "first steps in which the codes stay fixed", _NOT_NEGATIVE),
    "embed": Field(
        False,
        "compare mixtures of codes, sparsemax(z C^T / T) C (FDT), in place of z; L_code still sees z, and the teacher "
        "mixes the student's codes",
    ),
    "embed_temperature": Field(0.1, "T of these mixtures; the lower, the fewer codes are mixed", _POSITIVE),
}

_QUEUE = {"size": Field(65536, "Q, entries of each momentum queue; a multiple of the global batch", _POSITIVE)}

_TEACHER = {
    "momentum": Field(0.995, "of the moving average", _SHARE),
    "dropout": Field(True, "dropout in the teacher as well, as in ALBEF"),
}

_ITM = {
    "group_size": Field(
        64,
        "pairs that hard negatives are drawn from (ALBEF: one device's batch)",
        Range(lambda x: x >= 2, "2 or more: a negative comes from another pair of the group"),
    )
}

_MLM = {
    "probability": Field(0.15, "share of the tokens that are masked", _SHARE),
    "max_predictions": Field(8, "masked tokens of a text at most", _POSITIVE),
}

_VQA = {
    "answer_tokens": Field(10, "length of an answer including [CLS] and [SEP]; longer ones are cut", _THREE_OR_MORE),
    "answers_per_question": Field(10, "distinct answers to a question that are trained on, by frequency", _POSITIVE),
    "rank_top_k": Field(128, "answers scored in full, those with the likeliest first token", _POSITIVE),
    "first_token_twice": Field(
        True, "the first token counts twice in an answer's score, as in ALBEF; otherwise once, as in its likelihood"
    ),
}

_LOSS_WEIGHTS = {  # a loss of weight 0 is not computed
    "mlm": Field(1.0, "masked tokens", _NOT_NEGATIVE),
    "itm": Field(1.0, "image-text matching", _NOT_NEGATIVE),
    "ica": Field(1.0, "contrastive alignment", _NOT_NEGATIVE),
    "code": Field(1.0, "codebook", _NOT_NEGATIVE),
}

_OPTIMIZER = {
    "learning_rate": Field(1e-4, "peak", _POSITIVE),
    "final_learning_rate": Field(1e-5, "at the last step", _NOT_NEGATIVE),
    "warmup_learning_rate": Field(1e-5, "at step 0", _NOT_NEGATIVE),
    "warmup_steps": Field(2000, "steps of linear warm-up", _NOT_NEGATIVE),
    "schedule": Field(
        "cosine",
        "cosine: per step; albef: warm-up in stairs, then constant within an epoch",
        _one_of("cosine", "albef"),
    ),
    "weight_decay": Field(0.02, "of AdamW", _NOT_NEGATIVE),
    "b1": Field(0.9, "of AdamW", _BELOW_ONE),
    "b2": Field(0.999, "of AdamW", _BELOW_ONE),
    "eps": Field(1e-8, "of AdamW", _POSITIVE),
    "clip_norm": Field(0.0, "largest global norm of the gradient; 0: no clipping", _NOT_NEGATIVE),
    # As in ALBEF, embeddings are decayed, biases and norms are not. The temperature, which ALBEF decays, is not decayed
    # here, nor are the codes, which are normalised before every use.
    "groups": Field(
        (("temperature/.*", 1.0, 0.0), ("codebook/.*", 1.0, 0.0), (".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0)),
        "(pattern of names, learning-rate factor, weight-decay factor); the first match counts",
    ),
}

_TRAIN = {
    "batch_size": Field(512, "N, records over all devices", _POSITIVE),
    "microbatches": Field(1, "parts of each device's batch the gradient is accumulated over", _POSITIVE),
    "gradient_dtype": Field(
        "float32",
        "in which gradients are summed over devices; bfloat16 halves the traffic",
        _one_of("float32", "bfloat16"),
    ),
    "steps": Field(0, "length of the run; exactly one of steps and epochs is set", _NOT_NEGATIVE),
    "epochs": Field(30, "length of the run; exactly one of steps and epochs is set", _NOT_NEGATIVE),
    "log_steps": Field(50, "steps between log lines", _POSITIVE),
    "eval_steps": Field(0, "steps between evaluations; 0: only at the end", _NOT_NEGATIVE),
    "checkpoint_steps": Field(1000, "steps between checkpoints", _POSITIVE),
    "keep": Field(2, "newest checkpoints that are kept besides the best", _POSITIVE),
}

_EVAL = {
    "splits": Field(("val",), "evaluated during training, and by `cbalign evaluate` by default", _NAMES),
    "best_split": Field("", "split that selects the best checkpoint; empty: none is selected"),
    "batch_size": Field(256, "records encoded at a time", _POSITIVE),
    "max_tokens": Field(0, "text length including [CLS]; 0: data.max_tokens", _ZERO_OR_THREE),
    "max_words": Field(0, "words a text is cut to before it is encoded; 0: data.max_words", _NOT_NEGATIVE),
    "captions_per_image": Field(0, "texts in the gallery for each image; 0: all", _NOT_NEGATIVE),
    "rerank_top_k": Field(16, "candidates the matching head re-ranks", _POSITIVE),
    "best_score": Field(
        "contrastive",
        "ranking that selects the best checkpoint; itm and sum re-rank at every evaluation",
        _one_of("contrastive", "itm", "sum"),
    ),
    "token_megabytes": Field(2048, "memory for a gallery's tokens; larger galleries are kept in bfloat16", _POSITIVE),
    "weights": Field(
        "student", "parameters that are evaluated; teacher: the moving average", _one_of("student", "teacher")
    ),
    "baselines": Field(True, "evaluate nearest neighbours on pixels and bags of words as well"),
}

_PROTOCOL = {  # of the published figure an evaluation is compared with; deviations are reported as notes
    "name": Field("", "of the protocol; empty: none"),
    "task": Field("pretrain", "of the run whose weights are evaluated"),
    "trained_on": Field("", "data set of that run; empty: any"),
    "data": Field("", "data set of the evaluation"),
    "image_size": Field(0, "side of the images in pixels", _NOT_NEGATIVE),
}

SECTIONS: dict[str, dict[str, Field]] = {
    "": _GENERAL,
    "data": _DATA,
    "model": _MODEL,
    "init": _INIT,
    "contrast": _CONTRAST,
    "codebook": _CODEBOOK,
    "queue": _QUEUE,
    "teacher": _TEACHER,
    "itm": _ITM,
    "mlm": _MLM,
    "vqa": _VQA,
    "loss_weights": _LOSS_WEIGHTS,
    "optimizer": _OPTIMIZER,
    "train": _TRAIN,
    "eval": _EVAL,
    "protocol": _PROTOCOL,
}
"""Section -> field -> what it is; "" holds the fields outside any section."""

FIELDS: dict[str, Field] = {
    f"{section}.{name}" if section else name: field
    for section, fields in SECTIONS.items()
    for name, field in fields.items()
}
"""Dotted name -> what it is."""
