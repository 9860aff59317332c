"""Where a run starts from: its own checkpoint, another's, weights, or scratch; and the vocabulary that fits."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from cbalign.data import text
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.runs.workdir import CONFIG, VOCABULARY, Run, open_run, run_arrays, task_class
from cbalign.storage import write_atomically
from cbalign.tasks.transfer import find_transfer, transfer_state, vocabulary_rows
from cbalign.training.checkpoints import Checkpoints, named_checkpoint, restore_named
from cbalign.training.state import TrainState
from cbalign.weights import weights_folder
from cbalign.weights.loading import combine
from cbalign.weights.released import known_names, locate
from cbalign.weights.weights_folder import Weights

# Words that fewer training texts contain are left to the word pieces that the vocabulary has.
_MIN_WORD_COUNT = 5


@dataclasses.dataclass(frozen=True)
class Start:
    """The state a run starts with.

    Attributes:
      state: replicated.
      step: finished steps.
      origin: the places a start is looked for, as lines for the log, with the one taken marked.
      initial_rms: {module: root-mean-square of its initial values} where weights were loaded over them.
    """

    state: TrainState
    step: int
    origin: str
    initial_rms: dict | None = None


def initial_state(
    make_state: Callable[[], TrainState],
    checkpoints: Checkpoints,
    *,
    checkpoint: str = "",
    weights: tuple = (),
    load_weights: Callable[[TrainState], tuple[TrainState, str]] | None = None,
    steps: int,
    seed: int,
    batch_size: int,
    fall_back: bool = False,
) -> Start:
    """Starts from the first of these that exists.

    1. the run's own newest checkpoint,
    2. the checkpoint that `init.checkpoint` names, complete,
    3. the weights that `init.weights` names, the rest initialised,
    4. scratch.

    Args:
      make_state: () -> the state from scratch.
      checkpoints: the run's own.
      checkpoint, weights: of `config.init`.
      load_weights: a state from scratch -> (the same with those weights in it, a report), see `load_weights`.
      steps: to train in all, those of a named checkpoint included.
      seed: of this run; a named checkpoint's run may have had another.
      batch_size: of this run.
      fall_back: resume from an older checkpoint where the newest cannot be read.

    Raises:
      UserError: a checkpoint or weights that are missing or do not fit.
    """
    own, initial_rms, report = checkpoints.latest_step(), None, ""
    if own:
        taken = 1
        state = devices.owned(checkpoints.restore_newest(jax.eval_shape(make_state), fall_back=fall_back))
        own = int(state.step)
    elif checkpoint:
        taken = 2
        state = _named_state(checkpoint, jax.eval_shape(make_state), steps=steps, batch_size=batch_size)
        state = dataclasses.replace(devices.owned(state), seed=devices.replicate(np.uint32(seed)))
    elif weights:
        taken, state = 3, make_state()
        initial_rms = module_rms(state.params)
        assert load_weights is not None
        state, report = load_weights(state)
        state = devices.replicate(state)
    else:
        taken, state = 4, devices.replicate(make_state())
    places = (
        ("own checkpoint", f"step {own}" if own else "none"),
        ("init.checkpoint", checkpoint or "none"),
        ("init.weights", ", ".join(weights) or "none"),
        ("scratch", ""),
    )
    lines = [
        f"  {i}. {name:<17}{what}{'  <- taken' if i == taken else ''}".rstrip()
        for i, (name, what) in enumerate(places, 1)
    ]
    origin = "\n".join(["starting from the first of these that exists:", *lines, *([report] if report else [])])
    return Start(state, int(state.step), origin, initial_rms)


def _named_state(checkpoint: str, like: TrainState, *, steps: int, batch_size: int) -> TrainState:
    """The state of a named checkpoint, where this run can continue it."""
    state = restore_named(checkpoint, like)
    if int(state.step) >= steps:
        raise UserError(
            f"init.checkpoint={checkpoint} is at step {int(state.step)}, which counts towards train.steps={steps}; set "
            "train.steps higher"
        )
    if state.queue and int(state.queue.pointer) % batch_size:
        raise UserError(
            f"init.checkpoint={checkpoint} has its queues filled up to slot {int(state.queue.pointer)}, no multiple of "
            f"train.batch_size={batch_size}, so that batches would overwrite them unevenly; keep its batch size, or "
            "name the run in init.weights"
        )
    return state


def load_weights(run: Run, state: TrainState) -> tuple[TrainState, str]:
    """A fresh state with the weights of `init.weights` in it, and the report of what was taken."""
    sources = [read_source(path) for path in run.config.init.weights]
    weights = combine(sources, tokenizer=run.tokenizer, other_vocabulary=not run.config.data.vocabulary)
    transfer = find_transfer(run.task.starts_from, weights.task, task=run.task.name, path=weights.folder)
    own, rows = weights_folder.vocabulary_tokens(run.tokenizer), None
    if weights.words and weights.words != own:
        rows = vocabulary_rows(own, weights.words)
    state, report = transfer_state(
        state, weights.arrays, transfer, vocabulary=rows, global_batch=run.config.train.batch_size
    )
    new = f"; {len(set(own) - set(weights.words or ()))} words are new" if rows is not None else ""
    notes = "".join(_embedding_note(source, run.config.codebook.embed) for source in sources)
    return state, f"{weights.folder}: {report}{new}{notes}"


def _embedding_note(source: Weights, embed: bool) -> str:
    """What to know where features are mixtures of codes on one side only; the parameters are the same on both."""
    codebook = (source.info.get("config") or {}).get("codebook")
    trained = codebook.get("embed", embed) if isinstance(codebook, dict) else embed
    if trained == embed:
        return ""
    return f"; note: {source.folder} was trained with codebook.embed={trained}, so that its features were others"


def read_source(path: str) -> Weights:
    """Weights to start from: a converted or exported folder, or the best checkpoint of a workdir."""
    folder = locate(path)
    if (folder / weights_folder.INFO).exists():
        return weights_folder.read_weights(folder)
    run = open_run(folder)
    return Weights(
        str(path),
        run_arrays(run, queue=True),
        {"vocabulary": weights_folder.vocabulary_info(run.tokenizer), "config": run.config.to_dict()},
        task=run.config.task,
        words=weights_folder.vocabulary_tokens(run.tokenizer),
    )


def check_init(config: Any) -> None:
    """Raises UserError where `config.init` names something that does not exist, before any work is done."""
    if config.init.checkpoint:
        named_checkpoint(config.init.checkpoint)
    for path in config.init.weights:
        folder = locate(path)
        if not (folder / weights_folder.INFO).exists() and not (folder / CONFIG).exists():
            raise UserError(
                f"init.weights: {path} is neither a folder that `cbalign convert` or `export` wrote "
                f"({weights_folder.INFO}), nor that of a run ({CONFIG}), nor the name of released weights "
                f"({known_names()})"
            )


def write_vocabulary(config: Any, records: Any, path: epath.Path) -> None:
    """Puts the vocabulary beside a new run.

    It is the one that `data.vocabulary` names; else that of the weights the run starts from, with the frequent words of
    the training texts added; else one trained on the training texts.
    """
    if config.data.vocabulary:
        tokenizer = text.load_tokenizer(config.data.vocabulary)
        words = weights_folder.vocabulary_tokens(tokenizer)
    else:
        texts = _texts(records, text.CLEANERS[task_class(config).text_cleaning])
        words = next((known for known in map(source_words, config.init.weights) if known), None)
        if words is None:
            text.train_vocabulary(texts, path, size=config.data.vocabulary_size)
            return
        words = [*words, *_new_words(texts, words, room=config.data.vocabulary_size - len(words))]
    write_atomically(path, "".join(f"{word}\n" for word in words))


def _texts(records: Any, clean: Callable[[str], str]):
    """All texts as they are encoded: captions, questions or sentences, cleaned, and the answers to each question."""
    for group in records.texts:
        yield from map(clean, group)
    for people in records.columns.get("answers", ()):
        yield from {answer.lower() for answer in people}


def source_words(path: str) -> list[str] | None:
    """The vocabulary of weights, in the order of its ids; None where the folder has none."""
    file = locate(path) / VOCABULARY
    return text.read_vocabulary(file) if file.exists() else None


def _new_words(texts, words: list[str], *, room: int) -> list[str]:
    """Words of the texts that the vocabulary lacks, the most frequent first, at most `room`."""
    counts = collections.Counter(word for line in texts for word in re.findall(r"\w+", line))
    known = set(words)
    new = sorted(
        (word for word, count in counts.items() if count >= _MIN_WORD_COUNT and word not in known),
        key=lambda word: (-counts[word], word),
    )
    return new[: max(0, room)]


def parameter_table(params: dict, *, initial_rms: dict | None = None) -> str:
    """One line a module: number of parameters and root-mean-square of their values, to see what was loaded.

    Args:
      params: the student's tree, host arrays.
      initial_rms: see `Start`; shown in a column beside.
    """
    lines = [f"{'module':<24}{'parameters':>12}{'rms':>10}" + (f"{'scratch':>10}" if initial_rms else "")]
    counts = {name: sum(np.size(x) for x in jax.tree.leaves(tree)) for name, tree in params.items()}
    for name, value in module_rms(params).items():
        before = f"{initial_rms[name]:>10.4f}" if initial_rms else ""
        lines.append(f"{name:<24}{counts[name]:>12,}{value:>10.4f}{before}")
    return "\n".join([*lines, f"{'all':<24}{sum(counts.values()):>12,}"])


def module_rms(params: dict) -> dict[str, float]:
    """{module: root-mean-square of its values}."""

    def rms(tree):
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
        return (sum((x**2).sum() for x in leaves) / sum(x.size for x in leaves)) ** 0.5

    return {name: rms(tree) for name, tree in params.items()}
