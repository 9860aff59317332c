"""What a task's run starts from: the weights of another run, or of a folder, and a vocabulary that fits them."""

import collections
import dataclasses
import re

import flax
import jax
import numpy as np
from etils import epath

from cbalign.runs.workdir import open_run
from cbalign.data import text
from cbalign.errors import UserError
from cbalign.weights import folder
from cbalign.tasks.transfer import take_over

# Words that fewer training texts have are left to the pieces the vocabulary has for them.
_MIN_WORD_COUNT = 5


@dataclasses.dataclass(frozen=True)
class _Source:
    """Weights to start from: the task they were trained for, arrays by name, and the vocabulary."""

    task: str
    arrays: dict
    words: list


def _source(path) -> _Source:
    """A workdir's best checkpoint, or a folder of converted or exported weights."""
    folder = epath.Path(path)
    if (folder / folder.INFO).exists():
        weights = folder.read_weights(path)
        words = (folder / "vocab.txt").read_text().splitlines()
        task = weights.info.get("config", {}).get("task", "pretrain")
        arrays = {name.partition("/")[2]: x for name, x in weights.arrays.items() if name.startswith("params/")}
        return _Source(task, arrays, words)
    run = open_run(path)
    return _Source(run.config.task, flat(run.params()), _words(run.workdir / "vocab.txt"))


def flat(params) -> dict:
    """{"module/.../name": numpy array} of a parameter tree."""
    leaves = flax.traverse_util.flatten_dict(params, sep="/")
    return {name: np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x) for name, x in leaves.items()}


def load_weights(run, state):
    """A fresh state with the weights of `config.init.weights` in it, and the teacher a copy of the student."""
    (path,) = run.config.init.weights
    source = _source(path)
    rules = run.task.rules.get(source.task)
    if rules is None:
        raise UserError(f"init.weights: {path} was trained for {source.task}; {run.config.task} starts from "
                        f"{' or '.join(run.task.rules)}")
    words = _words(run.workdir / "vocab.txt")
    rows = None if words == source.words else vocabulary_rows(words, source.words)
    found, report = take_over(flat(state.params), source.arrays, rules, vocabulary=rows)
    print(f"{path}: {len(report['taken'])} arrays taken, {len(report['renamed'])} renamed, {len(report['fresh'])} "
          f"fresh, {len(report['unused'])} of no use here"
          + (f"; {len(set(words) - set(source.words))} words are new" if rows is not None else ""))
    fresh = flax.traverse_util.flatten_dict(state.params, sep="/")
    params = flax.traverse_util.unflatten_dict(
        {name: fresh[name] if array is None else array for name, array in found.items()}, sep="/")
    teacher = jax.tree.map(np.array, run.task.teacher_params(params))
    return dataclasses.replace(state, params=params, teacher=teacher)


def _words(path) -> list:
    return path.read_text().splitlines()


def vocabulary_rows(ours: list, theirs: list) -> np.ndarray:
    """float32 [here, there]: a word that is there takes its row, a new one the mean of the pieces it was cut into."""
    place = {word: i for i, word in enumerate(theirs)}
    rows = np.zeros((len(ours), len(theirs)), np.float32)
    for i, word in enumerate(ours):
        pieces = [word] if word in place else _pieces(word, place)
        for piece in pieces:
            rows[i, place[piece]] += 1 / len(pieces)
    return rows


def _pieces(word: str, place: dict) -> list:
    """Greedy longest-first word pieces, as BERT cuts a word; ["[UNK]"] where that fails."""
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in place), None)
        if end is None:
            return ["[UNK]"]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


def write_vocabulary(config, records, path) -> None:
    """Puts the vocabulary beside the run: the named one, else that of the weights it starts from with the words of
    this task's texts added, else one trained on them."""
    if path.exists():
        return
    texts = [line for group in records.texts for line in (group if isinstance(group, list) else [group])]
    texts += [answer for people in records.answers or () for answer in set(people)]
    cleaned = [text.clean_caption(line) for line in texts]
    if config.data.vocabulary:
        words = text.load_tokenizer(config.data.vocabulary).get_vocab()
        path.write_text("".join(f"{word}\n" for word in sorted(words, key=words.get)))
    elif config.init.weights:
        words = _source(config.init.weights[0]).words
        counts = collections.Counter(word for line in cleaned for word in re.findall(r"\w+", line))
        known = set(words)
        new = sorted((word for word, n in counts.items() if n >= _MIN_WORD_COUNT and word not in known),
                     key=lambda word: (-counts[word], word))
        kept = new[:max(0, config.data.vocabulary_size - len(words))]
        path.write_text("".join(f"{word}\n" for word in [*words, *kept]))
    else:
        text.train_vocabulary(cleaned, path, size=config.data.vocabulary_size)
