"""A trained model's answers about your own images.

predictor = Predictor(open_run("runs/vqa"))
for answer, probability in predictor(["shapes.png"], "what colour is the circle?"):
    print(probability, answer)
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from cbalign.data.image_files import ImageSource
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.inference.encoder import known_words, shortened, token_ids, unknown_words, usable_image
from cbalign.inference.source import Source, open_source
from cbalign.runs.workdir import Run
from cbalign.tasks.base import text_limits

MATCH = "match"
"""Stands for the matching head of a run of pretraining or retrieval, beside the names of tasks."""


class Predictor:
    """A model's head, ready to answer.

    Args:
      source: an opened run, or what `open_source` takes.
      task: the task the model must have been trained for, or `MATCH` to ask the matching head whether a text fits an
        image; "" for whatever the model was trained for.
      checkpoint: of a run, as for `Run.params`.

    Raises:
      UserError: the head for that task was never trained in this run.
    """

    def __init__(self, source: Run | Source | os.PathLike | str, *, task: str = "", checkpoint: str = "best"):
        opened = open_source(source, checkpoint=checkpoint)
        self._match = task == MATCH or (not task and opened.task.trains_matching)
        _check_trained(opened, task, self._match)
        self.source, self._params = opened, devices.copy_to_local(opened.params)

    @property
    def images(self) -> int:
        """How many images each answer is about."""
        return self.source.task.images_per_record

    def __call__(
        self, images: Sequence[ImageSource | np.ndarray], sentence: str, *, top: int = 5
    ) -> list[tuple[str, float]]:
        """The likeliest answers and their probabilities, best first.

        Args:
          images: as many as the task takes, in any form that `image_files.read_resized` takes.
          sentence: the question, statement, hypothesis or text.
          top: answers to return; fewer where there are no more.

        Returns:
          [(answer, probability)]. For vqa the probabilities are over the answers that were scored in full
          (`vqa.rank_top_k` of the list); for the others over the classes.

        Raises:
          UserError: another number of images, one that cannot be read, or a sentence without a known word.
        """
        return self.with_notes(images, sentence, top=top)[0]

    def with_notes(
        self, images: Sequence[ImageSource | np.ndarray], sentence: str, *, top: int = 5
    ) -> tuple[list[tuple[str, float]], list[str]]:
        """(What a call returns, sentences on what the model did not see of the text); otherwise as a call."""
        task, tokenizer, data = self.source.task, self.source.tokenizer, self.source.task.config.data
        if len(images) != self.images:
            raise UserError(
                f"{MATCH if self._match else task.name} looks at {self.images} image(s), {len(images)} "
                "given; give as many (--image=FILE each)"
            )
        limit, words = text_limits(task.config)
        ids, unknown, cut = token_ids(
            tokenizer, [sentence], max_tokens=limit, max_words=words, cleaning=task.text_cleaning
        )
        if unknown:
            known = ", ".join(map(repr, known_words(tokenizer)))
            raise UserError(
                f"no word of {shortened(sentence)!r} is in the model's vocabulary, which knows {known} and others"
            )
        others = unknown_words(tokenizer, sentence, max_words=words, cleaning=task.text_cleaning)
        notes = [f"not in the vocabulary: {shortened(', '.join(map(repr, others)))}"] if others else []
        if cut:
            notes.append(f"only the first {limit - 1} tokens of the text are used")
        pixels = tuple(usable_image(image, data.image_size)[np.newaxis] for image in images)
        names, probabilities = task.predict(self._params, pixels, ids, match=self._match)
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [(names[i], float(probabilities[i])) for i in order], notes


def _check_trained(source: Source, wanted: str, match: bool) -> None:
    task = source.task
    if match and not task.trains_matching:
        why = "loss_weights.itm is 0" if task.shares_embedding_space else f"it is a run of {task.name}"
        raise UserError(f"the matching head of {source.name} was never trained ({why}); name a run that trained it")
    if match:
        return
    if wanted and wanted != task.name:
        raise UserError(
            f"{source.name} is a run of {task.name}: its head for {wanted} was never trained; name a run "
            f"of one of the configs whose task is {wanted}"
        )
    if not task.prediction_input:
        raise UserError(
            f"{source.name} is a run of {task.name}, which has no head for predictions about images"
            + (" (loss_weights.itm is 0)" if task.shares_embedding_space else "")
        )
