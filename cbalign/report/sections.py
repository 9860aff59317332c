"""What the page shows of a run besides figures: examples, confusions, attention, codes, the embedding space."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from PIL import Image

from cbalign.errors import UserError
from cbalign.evaluation.confusion import Confusion, confused_concepts, confused_words, first_misses
from cbalign.inference.explanation import Explainer, Explanation
from cbalign.report.codebook_view import CodebookView, codebook_view
from cbalign.report.embedding_map import EmbeddingMap, Gap, embedding_map, gaps
from cbalign.report.encoded_split import EncodedSplit, encode_split
from cbalign.report.heat import heat
from cbalign.report.history import History
from cbalign.report.prediction_examples import PredictionExamples, draw_answers
from cbalign.report.retrieval_examples import HitsAndMisses, hits_and_misses
from cbalign.runs.workdir import Run

_CONCEPTS, _WORDS, _EXPLAINED, _MAP_SIDE, _MOST_WORDS = 8, 12, 6, 96, 14


@dataclasses.dataclass(frozen=True)
class Explained:
    """A drawn pair with its attention, ready to be shown: `maps` are (word, image) of at most `_MOST_WORDS` words."""

    explanation: Explanation
    image: Image.Image
    maps: list[tuple[str, Image.Image]]


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Sections of a run with a shared embedding space.

    Attributes:
      encoded: the split that all of them are about.
      seed: of all draws.
      by_text, by_image: hits and misses of both directions.
      concepts: confused with one another.
      words: (word, word it is taken for, misses).
      explained: pairs with their attention; empty where the model never learned what it needs.
      view: of the codebook; None where it was never trained.
      map: None where there are too few pairs.
      gaps: before and after training.
    """

    encoded: EncodedSplit
    seed: int
    by_text: HitsAndMisses
    by_image: HitsAndMisses
    concepts: list[Confusion]
    words: list[tuple[str, str, float]]
    explained: list[Explained]
    view: CodebookView | None
    map: EmbeddingMap | None
    gaps: list[Gap]


@dataclasses.dataclass(frozen=True)
class Sections:
    """What a run has to show; at most one of both is there.

    Attributes:
      retrieval: of a task with a shared embedding space.
      answers: of a task that predicts.
      missing: why there is neither; "" where the task has none to show.
    """

    retrieval: Retrieval | None = None
    answers: PredictionExamples | None = None
    missing: str = ""


def make_sections(run: Run, history: History, *, split: str = "", checkpoint: str = "best", seed: int = 0) -> Sections:
    """Encodes or answers a split with a run's model.

    Args:
      run: from `open_run`.
      history: of it.
      split: by default the test split of most images among those evaluated, else the config's first validation split,
        else the split of most images evaluated.
      checkpoint: see `Run.params`.
      seed: of all draws.

    Raises:
      UserError: a split or checkpoint that was named and does not exist, or one named for a task without examples.
    """
    asked, task = bool(split) or checkpoint != "best", run.task
    if not (task.shares_embedding_space or task.prediction_input):
        if asked:
            raise UserError(f"a run of the task {task.name} has no examples; leave out --split and --checkpoint")
        return Sections()
    data = ""
    if not split:
        results = history.results
        tests = [result for result in results if str(result["split"]).startswith("test")]
        if not tests and run.config.eval.splits:
            split = run.config.eval.splits[0]
        elif results:
            largest = max(tests or results, key=lambda result: result.get("images") or 0)
            split, data = largest["split"], largest["data"]
        else:
            return Sections(missing="the config names no split to evaluate; name one with --split")
    try:
        if task.shares_embedding_space:
            encoded = encode_split(run, split, data=data, checkpoint=checkpoint)
            return Sections(retrieval=_retrieval(run, encoded, seed))
        return Sections(answers=draw_answers(run, split, data=data, checkpoint=checkpoint, seed=seed))
    except UserError as error:
        if asked:
            raise
        return Sections(missing=str(error))


def _retrieval(run: Run, encoded: EncodedSplit, seed: int) -> Retrieval:
    gallery = encoded.gallery
    compared = encoded.scores, gallery.image_ids, gallery.text_ids
    by_text, by_image = hits_and_misses(encoded, seed=seed)
    view = codebook_view(encoded) if encoded.source.task.trains_codebook else None
    return Retrieval(
        encoded,
        seed,
        by_text,
        by_image,
        confused_concepts(*compared, _CONCEPTS),
        confused_words(first_misses(*compared, gallery.texts), _WORDS),
        _explained(encoded, seed) if encoded.trains_matching else [],
        view,
        embedding_map(encoded, view, seed=seed),
        gaps(encoded, run, seed=seed),
    )


def _explained(encoded: EncodedSplit, seed: int) -> list[Explained]:
    """Explanations of pairs drawn at random."""
    explain, shown = Explainer(encoded.source), []
    pairs = encoded.pairs
    rows = np.random.default_rng(seed).choice(len(pairs), min(_EXPLAINED, len(pairs)), replace=False)
    for image, text in pairs[np.sort(rows)].tolist():
        found = explain(encoded.pixels(image), encoded.gallery.texts[text], top=3)
        if found.word_maps is None:  # the same for all pairs: the model never learned what the maps need
            return []
        scale = float(found.word_maps.max(initial=0.0))
        draw = functools.partial(heat, found.image, scale=scale, side=_MAP_SIDE)
        maps = [(word, draw(attention)) for word, attention in zip(found.words, found.word_maps)]
        shown.append(Explained(found, draw(np.zeros((1, 1), np.float32)), maps[:_MOST_WORDS]))
    return shown
