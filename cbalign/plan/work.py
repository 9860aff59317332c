"""Classes of work: which part of the method an instruction of a compiled step belongs to.

JAX gives each operation its module's scopes ("fusion_encoder/layer_3/cross_attention/key") and the lines of source it
was called from; the compiler passes both on. A fusion goes by what names it, usually its last operation.
"""

import re

from cbalign.plan.hlo import Instruction, Module

ATTENTION, PROJECTIONS, MLPS = "attention", "projections of attention", "MLPs"
NORMS, EMBEDDINGS, LOSSES = "norms and residuals", "embeddings and patches", "losses and heads"
TRANSPORT, OPTIMISER = "transport", "optimizer and teacher average"
RANDOM, COPIES, COLLECTIVES, OTHER = "random bits", "copies", "collectives", "other"

# The first that matches the scopes counts.
_SCOPES = (
    (RANDOM, re.compile(r"threefry|_bernoulli|_uniform|_gumbel|random_bits|rng_bit|random_seed|random_wrap")),
    (
        PROJECTIONS,
        re.compile(r"attention(?:\.\w+)?/(?:query|key|value|output)\b|paired_encoder/layer_\d+_(key|value)\b"),
    ),
    (ATTENTION, re.compile(r"attention(?:\.\w+)?/")),
    (NORMS, re.compile(r"_norm/|/norm/|Dropout_\d+")),
    (LOSSES, re.compile(r"_head\b|_projection\b|codebook|temperature|predict_tokens|\.match\b")),
    (MLPS, re.compile(r"/mlp\b")),
    (EMBEDDINGS, re.compile(r"embedding|_patches|position")),
    (NORMS, re.compile(r"_encoder(?:\.\w+)?/|answer_layers/")),
)
# Otherwise the innermost of these files it was called from.
_FILES = (
    (TRANSPORT, "/cbalign/losses/transport.py"),
    (LOSSES, "/cbalign/losses/"),
    (LOSSES, "/cbalign/training/momentum_queue.py"),
    (OPTIMISER, "/optax/"),
    (OPTIMISER, "/cbalign/training/optimizer.py"),
    (OPTIMISER, "/cbalign/training/state.py"),
    (RANDOM, "/cbalign/training/row_dropout.py"),
    (EMBEDDINGS, "/cbalign/models/vit.py"),
    (LOSSES, "/cbalign/tasks/"),
    (OPTIMISER, "/cbalign/training/step.py"),
)
# What these draw is random, whatever scope it is in.
_GENERATORS = ("/cbalign/training/mixing_generator.py",)
_COPYING = ("copy", "copy-start", "copy-done", "transpose", "reshape", "bitcast-convert")


def class_of(module: Module, instruction: Instruction) -> str:
    """The class of work of an instruction that is no collective."""
    name, frame = instruction.op_name, instruction.frame
    if not name and instruction.opcode == "fusion":
        named = [x for x in module.computations[dict(instruction.called)["calls"]].values() if x.op_name]
        if named:
            name, frame = named[-1].op_name, named[-1].frame
    stack = module.files.get(frame, "")
    if instruction.opcode in _COPYING or name.endswith("/copy"):
        return COPIES
    if stack.partition(" ")[0].endswith(_GENERATORS):
        return RANDOM
    for work, pattern in _SCOPES:
        if pattern.search(name):
            return work
    found = [(stack.find(file), work) for work, file in _FILES if file in stack]
    return min(found, key=lambda place: place[0])[1] if found else OTHER
