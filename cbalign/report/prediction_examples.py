"""Examples of a task's answers: right and wrong ones side by side, drawn at random."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from cbalign.errors import UserError
from cbalign.inference.predictor import Predictor
from cbalign.report.encoded_split import THUMBNAIL_SIDE, rgb
from cbalign.report.inline import reduced
from cbalign.runs.workdir import Run

# Records that are answered to find right and wrong ones among them.
_TRIED = 48


@dataclasses.dataclass(frozen=True)
class Answered:
    """One record and what the model says of it.

    Attributes:
      images: one or two.
      text: the question or sentence.
      answers: (answer, probability), best first.
      truths: the right answers, the most frequent first; empty where they are not public.
    """

    images: list[Image.Image]
    text: str
    answers: list[tuple[str, float]]
    truths: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether the best answer is a right one."""
        return self.answers[0][0] in self.truths


@dataclasses.dataclass(frozen=True)
class PredictionExamples:
    """Records of one split, drawn at random.

    Attributes:
      data, split: their source.
      seed: of the draw.
      drawn, tried, right_count: how many were drawn, how many of them have a text with a known word and were answered,
        and how many of those rightly.
      right, wrong: some of each.
      secret: whether the split's answers are not public; then all are among `wrong`.
    """

    data: str
    split: str
    seed: int
    drawn: int
    tried: int
    right_count: int
    right: list[Answered]
    wrong: list[Answered]
    secret: bool


def draw_answers(
    run: Run, split: str, *, data: str = "", checkpoint: str = "best", count: int = 4, seed: int = 0
) -> PredictionExamples:
    """Answers records of a split drawn at random.

    Args:
      run: of a task that predicts.
      split: of the run's data set, or of `data`.
      data: another data set.
      checkpoint: see `Run.params`.
      count: right and wrong answers to show, fewer where there are no more.
      seed: of the draw.

    Raises:
      UserError: the data set, the split or the checkpoint does not exist.
    """
    predictor, shown = Predictor(run, checkpoint=checkpoint), run.split(split, data=data)
    records, answered = shown.records, []
    rows = np.random.default_rng(seed).choice(len(records), min(_TRIED, len(records)), replace=False)
    for row in np.sort(rows).tolist():
        sides, text = [records.image(row, side) for side in range(records.sides)], records.texts[row][0]
        pixels = [rgb(image, plain_rgb=records.images.plain_rgb) for image in sides]
        try:
            answers = predictor(pixels, text, top=3)
        except UserError:  # a text without a known word
            continue
        answered.append(
            Answered([reduced(image, THUMBNAIL_SIDE) for image in pixels], text, answers, run.task.truths(shown, row))
        )
    right, wrong = ([one for one in answered if one.right == wanted] for wanted in (True, False))
    return PredictionExamples(
        data or run.config.data.name,
        split,
        seed,
        len(rows),
        len(answered),
        len(right),
        right[:count],
        wrong[:count],
        secret=not any(one.truths for one in answered),
    )
