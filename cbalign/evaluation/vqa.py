"""Visual question answering: ranking a fixed list of answers, and the accuracy of the VQA challenge."""

import collections
import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from cbalign.errors import UserError

# The rules of the VQA challenge's evaluation (visualqa.org, `vqaEvaluation/vqaEval.py`).
_NUMBERS = {
    "none": "0",
    **{
        word: str(n)
        for n, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
        )
    },
}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_COMMA = re.compile(r"(\d)(,)(\d)")
# Contractions whose apostrophe is restored: the official list, which omits those that are words without apostrophe.
_CONTRACTIONS = [
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hasn't",
    "haven't",
    "he'd",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'll",
    "ma'am",
    "mightn't",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "shan't",
    "should've",
    "shouldn't",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'll",
    "someone's",
    "something'd",
    "something'll",
    "that's",
    "there'd",
    "there're",
    "there's",
    "they'd",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "y'all",
    "you'd",
    "you'll",
    "you're",
    "you've",
]
# Two apostrophes, of which either one may be missing.
_DOUBLE_CONTRACTIONS = [
    "couldn't've",
    "hadn't've",
    "he'd've",
    "it'd've",
    "mightn't've",
    "she'd've",
    "shouldn't've",
    "somebody'd've",
    "someone'd've",
    "something'd've",
    "there'd've",
    "they'd've",
    "we'd've",
    "who'd've",
    "wouldn't've",
    "y'all'll",
    "you'd've",
]


def _restored() -> dict:
    found = {word.replace("'", ""): word for word in _CONTRACTIONS}
    for word in _DOUBLE_CONTRACTIONS:
        first, second, third = word.split("'")
        found |= {f"{first}{second}'{third}": word, f"{first}'{second}{third}": word}
    # Irregular entries of the list: one is reversed, the others have three apostrophes.
    found |= {"somebody'd": "somebodyd", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at"}
    return found | dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've")


_RESTORED = _restored()


def normalise_answer(answer: str) -> str:
    """Normalizes an answer as the challenge does before comparing answers.

    Line breaks and tabs become spaces. A punctuation mark is deleted if the text contains it next to a space, or has a
    comma between digits; else it becomes a space. Periods that do not precede a digit are deleted. Finally the text
    is lowercased, number words become digits, articles are removed, and the apostrophes of contractions are restored.
    """
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    cleaned = answer
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        cleaned = cleaned.replace(mark, "" if beside_space or _COMMA.search(answer) else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", cleaned).lower().split()]
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def question_accuracy(answer: str, given: list[str]) -> float:
    """The challenge's accuracy of one answer, in [0, 1].

        mean over annotators of min(1, number of other annotators who gave the answer / 3)

    Answers are normalized only if the annotators disagree, as in the official script. VQA v2 has ten annotators; with a
    single one (Visual Genome) the accuracy is 1 if the answers are equal, else 0.
    """
    clean = lambda text: text.replace("\n", " ").replace("\t", " ").strip()  # noqa: E731
    answer, given = clean(answer), [clean(text) for text in given]
    if len(set(given)) > 1:
        answer, given = normalise_answer(answer), [normalise_answer(text) for text in given]
    equal = [text == answer for text in given]
    if len(given) == 1:
        return float(equal[0])
    return sum(min(1.0, (sum(equal) - own) / 3) for own in equal) / len(given)


def answer_accuracy(answers: list[str], given: list[list[str]], *, question_types, answer_types) -> dict:
    """Accuracy over a split, in percent: overall, by answer type and by question type.

    Args:
      answers: n answers of the model.
      given: n lists of the annotators' answers.
      question_types, answer_types: n strings each; "" is excluded from the breakdown.

    Returns:
      {"overall": float, "answer_types": {type: float}, "question_types": {type: float}}.
    """
    scores = [100 * question_accuracy(answer, people) for answer, people in zip(answers, given, strict=True)]

    def by(types):
        groups = collections.defaultdict(list)
        for kind, score in zip(types, scores, strict=True):
            groups[kind].append(score)
        return {kind: float(np.mean(group)) for kind, group in sorted(groups.items()) if kind}

    return {"overall": float(np.mean(scores)), "answer_types": by(answer_types), "question_types": by(question_types)}


@dataclasses.dataclass(frozen=True)
class AnswerFunctions:
    """The functions of a model that ranking calls, compiled and with bound parameters.

    Attributes:
      states: (images uint8 [b, S, S, 3], question ids int32 [b, L]) -> question states [b, L, w].
      next_token: (states, question ids, answer ids int32 [b, T]) -> log p of each token that may follow the T
        given ones, float32 [b, V].
      likelihood: (states, question ids, answer ids int32 [b, T]) -> log p of tokens 1 to T - 1, ignoring [PAD],
        float32 [b].
    """

    states: Callable[[Any, Any], Any]
    next_token: Callable[[Any, Any, Any], Any]
    likelihood: Callable[[Any, Any, Any], Any]


def rank_answers(
    functions: AnswerFunctions,
    images,
    question_ids,
    answer_ids,
    *,
    top_k: int,
    first_token_twice: bool = True,
    rows: int = 512,
):
    """Ranks the answers of a fixed list by log-likelihood, for one batch of questions (ALBEF `rank_answer`).

    One decoder step per question gives the probability of each answer's first token; the top_k answers by it are then
    scored in full:

        score(a) = sum over t of log p(token t + 1 | tokens 0 to t, question, image)

    over all tokens of the answer including the final [SEP]. ALBEF adds the first token's log-probability, by which it
    chose the answers, to this sum a second time, which favours answers with a likely beginning; its published figures
    were obtained that way.

    Args:
      functions: `AnswerFunctions`.
      images: uint8 [b, S, S, 3].
      question_ids: int32 [b, L].
      answer_ids: int32 [m, T], the list, [CLS] x_1 ... [SEP] padded with 0.
      top_k: number of answers scored in full; all m if there are fewer.
      first_token_twice: count the first token's log-probability twice, as ALBEF does; otherwise the score is the
        answer's log-likelihood.
      rows: number of answers scored per decoder call.

    Returns:
      (indices int [b, k] into the list, scores float32 [b, k]), best first; k = min(top_k, m).
    """
    states = functions.states(images, question_ids)
    b, k = len(question_ids), min(top_k, len(answer_ids))
    start = np.repeat(answer_ids[:1, :1], b, axis=0)
    by_first = np.asarray(functions.next_token(states, question_ids, start))[:, answer_ids[:, 1]]
    # Stable, so that answers with the same first token stay in the order of the list.
    chosen = np.argsort(-by_first, axis=1, kind="stable")[:, :k]
    scores = np.empty((b, k), np.float32)
    per_call = answers_per_call(b, k, rows=rows)
    repeat = np.repeat(np.arange(b), per_call)
    states, question_ids = states[repeat], question_ids[repeat]
    for start in range(0, k, per_call):
        # The last call is padded with the first answer, so that all calls have the same shape.
        columns = np.arange(start, start + per_call)
        part = chosen[:, np.where(columns < k, columns, 0)]
        likelihood = functions.likelihood(states, question_ids, answer_ids[part].reshape(b * per_call, -1))
        likelihood = np.asarray(likelihood).reshape(b, per_call)
        scores[:, start : start + per_call] = likelihood[:, : min(per_call, k - start)]
    if first_token_twice:
        scores += np.take_along_axis(by_first, chosen, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(scores, order, axis=1)


def answers_per_call(b: int, k: int, *, rows: int = 512) -> int:
    """Answers of each of b questions that one call of `likelihood` scores, of k in all."""
    return min(k, max(1, rows // b))


def write_results(path, question_ids, answers, *, expected_ids) -> None:
    """Writes the file that the test server expects: [{"question_id": int, "answer": str}, ...].

    Args:
      path: the JSON file.
      question_ids, answers: n each.
      expected_ids: the ids of all questions of the split; the server rejects incomplete files.

    Raises:
      UserError: a question is missing, answered twice, or not in the split.
    """
    counts = collections.Counter(int(number) for number in question_ids)
    expected = {int(number) for number in expected_ids}
    twice = [number for number, count in counts.items() if count > 1]
    missing, unknown = expected - counts.keys(), counts.keys() - expected
    if twice or missing or unknown or len(answers) != len(question_ids):
        raise UserError(
            f"the test server would reject {path}: {len(expected)} questions, {len(answers)} "
            f"answers; {len(missing)} missing, {len(twice)} answered twice, {len(unknown)} unknown"
        )
    rows = [{"question_id": int(number), "answer": answer} for number, answer in zip(question_ids, answers)]
    epath.Path(path).write_text(json.dumps(rows) + "\n")
