"""A trained model's answer about images of your own.

    predictor = Predictor(open_run("runs/vqa"), task="vqa")
    for answer, probability in predictor(["shapes.png"], "what colour is the circle?"):
        print(probability, answer)
"""

import functools

import jax
import numpy as np

from cbalign.runs.workdir import Run, open_run
from cbalign.runs import task_runs
from cbalign.data import task_batches
from cbalign.data import text
from cbalign.data.image_files import pillow_limit
from cbalign.errors import UserError
from cbalign.evaluation.vqa import AnswerFunctions, rank_answers
from cbalign.inference.image_files import MAX_PIXELS, UnreadableImage, read_image

IMAGES = {"vqa": 1, "nlvr2": 2, "snli_ve": 1, "match": 1}
# Tasks of runs in which the matching head learns.
_MATCHING = ("pretrain", "retrieval")


class Predictor:
    """A run's model with the parameters of one checkpoint, for one task.

    Args:
      run: from `open_run`.
      task: one of `IMAGES`; "match" asks the matching head whether a text fits an image.
      checkpoint: as for `Run.params`.

    Raises:
      UserError: that task's head was never trained in this run.
    """

    def __init__(self, run: Run, *, task: str, checkpoint: str = "best"):
        _check_trained(run, task)
        self.run, self.task = run, task
        self.params = jax.tree.map(lambda x: x.addressable_data(0), run.params(checkpoint=checkpoint))

    def __call__(self, paths: list, sentence: str, *, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest answers and their probabilities, best first.

        Args:
          paths: image files, as many as the task looks at.
          sentence: the question, statement, hypothesis or text.
          top: answers to return; fewer where there are no more.

        Returns:
          [(answer, probability)]. For vqa the probabilities are over the answers that were scored in full
          (`vqa.rank_top_k` of the list); for the others over the classes.

        Raises:
          UserError: another number of images, one that cannot be read, or a sentence without a known word.
        """
        if len(paths) != IMAGES[self.task]:
            raise UserError(f"{self.task} looks at {IMAGES[self.task]} image(s), {len(paths)} given; give --image="
                            "FILE as often")
        ids = self._encode(sentence)
        images = tuple(_read(path, self.run.config.data.image_size)[np.newaxis] for path in paths)
        names, probabilities = getattr(self, f"_{'classes' if self.task in ('nlvr2', 'snli_ve') else self.task}")(
            images, ids)
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [(names[i], float(probabilities[i])) for i in order]

    def _encode(self, sentence: str):
        tokenizer, length = self.run.tokenizer, self.run.config.data.max_tokens
        ids = text.encode(tokenizer, [text.clean_caption(sentence)], max_length=length)
        words = ids[0, 1:][ids[0, 1:] != tokenizer.pad_token_id]
        if not len(words) or np.all(words == tokenizer.unk_token_id):
            raise UserError(f"no word of {sentence!r} is in the run's vocabulary ({self.run.workdir / 'vocab.txt'})")
        return ids

    def _vqa(self, images, ids):
        config, answers = self.run.config, task_runs.answer_list(self.run)
        functions = {name: functools.partial(f, self.params) for name, f in self.run.task.functions().items()}
        answer_ids = task_batches.encode_answers(self.run.tokenizer, answers, max_length=config.vqa.answer_tokens)
        best, scores = rank_answers(AnswerFunctions(**functions), images[0], ids, answer_ids,
                                    top_k=config.vqa.rank_top_k)
        likelihood = np.exp(scores[0] - scores[0].max())
        return [answers[i] for i in best[0]], likelihood / likelihood.sum()

    def _classes(self, images, ids):
        return self.run.task.classes, np.asarray(self.run.task.functions()(self.params, images, ids))[0]

    def _match(self, images, ids):
        model = self.run.task.model

        def probabilities(params, image, ids):
            apply = functools.partial(model.apply, {"params": params})
            words, image = apply(ids, method="encode_text"), apply(image, method="encode_image")
            fused = apply(words["tokens"], ids, image["tokens"], method="fuse")
            return jax.nn.softmax(apply(fused, method="match"), axis=-1)

        return ("no match", "match"), np.asarray(jax.jit(probabilities)(self.params, images[0], ids))[0]


def _check_trained(run: Run, task: str) -> None:
    trained = run.config.task
    if task == "match":
        if trained not in _MATCHING or not run.config.loss_weights.itm:
            why = "loss_weights.itm is 0" if trained in _MATCHING else f"it is a run of {trained}"
            raise UserError(f"the matching head of {run.workdir} was never trained ({why}); name a run that trained it")
    elif trained != task:
        raise UserError(f"{run.workdir} is a run of {trained}: its head for {task} was never trained; name a run of "
                        f"one of the configs whose task is {task}")


def _read(path, size: int) -> np.ndarray:
    with pillow_limit(MAX_PIXELS):
        try:
            return read_image(path, size)
        except UnreadableImage as error:
            raise UserError(f"the image {path} cannot be used ({error}); name another one") from error
