"""Runs of the tasks after pretraining, VQA, NLVR2 and SNLI-VE: where their data, task and checkpoints come together."""

import collections
import dataclasses
import functools
import json

import jax
import numpy as np
from etils import epath

from cbalign.runs import ranking
from cbalign.runs.evaluate import evaluate_run
from cbalign.runs.train import train_run
from cbalign.runs.workdir import Run, check_same, check_workdir, evaluated_params, open_run, recorded
from cbalign.config import check_config, from_json, resolve_epochs, to_json
from cbalign.data import task_batches
from cbalign.data import task_records
from cbalign.evaluation.classification import blind_guess, classification_scores, consistency
from cbalign.evaluation.vqa import AnswerFunctions, answer_accuracy, rank_answers, write_results
from cbalign.runs import run_weights
from cbalign.runs.task_weights import load_weights, write_vocabulary
from cbalign.training import loop
from cbalign.distributed import devices

ANSWERS = "answers.json"


def train(config, workdir, *, command: str = "") -> loop.Outcome:
    """Trains, or goes on with, the run of a task's config in a workdir; arguments as for `train_run`."""
    run, records, steps_per_epoch = _start(config, workdir)
    config = run.config
    encoded = _encoded(run, records)
    sets = {split: load(run, split) for split in config.eval.splits}
    evaluator = Evaluator(run)
    data = config.data
    view = dict(size=data.image_size, scale=data.crop_scale, flip=data.flip, rand_augment=data.rand_augment,
                color=data.color)

    def batches(step):
        return task_batches.train_batches(
            records, encoded, seed=config.seed, start_step=step, global_batch=config.train.batch_size,
            process_index=jax.process_index(), process_count=jax.process_count(), view=view,
            threads=data.threads or None)

    def evaluate_splits(state, step):
        params = evaluated_params(state, config)
        return {split: evaluator(params, records)[0] for split, records in sets.items()}

    with recorded(run.workdir, command) as end:
        outcome = loop.run(run.task, config, workdir=run.workdir, batches=batches, steps_per_epoch=steps_per_epoch,
                           evaluate=evaluate_splits if sets else None,
                           load_weights=functools.partial(load_weights, run))
        end.update(step=outcome.step, interrupted_by=outcome.interrupted_by)
    return outcome


def load(run: Run, split: str, *, data: str = "") -> task_records.TaskRecords:
    """A split of the run's data set, or of another one."""
    config = run.config
    return task_records.load_records(run.task.records, data or config.data.name, split, config.data.dir or None)


def _start(config, workdir):
    """Makes or opens the workdir: (run, training records, steps per epoch)."""
    from cbalign.tasks import TASKS

    workdir = epath.Path(workdir)
    check_workdir(workdir)
    run_weights.check_init(config)
    kind = TASKS[config.task].records
    with devices.first_then_others("data"):
        records = task_records.load_records(kind, config.data.name, config.data.train_split, config.data.dir or None)
    steps_per_epoch = task_batches.steps_per_epoch(len(records), config.train.batch_size)
    config = resolve_epochs(config, steps_per_epoch=steps_per_epoch)
    check_config(config)
    if (workdir / "config.json").exists():
        check_same(from_json((workdir / "config.json").read_text()), config, workdir)
    loop.check_devices(config)
    devices.barrier("checked")
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        write_vocabulary(config, records, workdir / "vocab.txt")
        if kind == "questions" and not (workdir / ANSWERS).exists():
            answers = task_records.answer_list(config.data.name, records, config.data.dir or None)
            (workdir / ANSWERS).write_text(json.dumps(answers, indent=0) + "\n")
        (workdir / "config.json").write_text(to_json(config))
    devices.barrier("workdir")
    return open_run(workdir), records, steps_per_epoch


def _encoded(run, records) -> task_batches.EncodedTexts:
    """The training columns of a task's records."""
    encoded = task_batches.encode_texts(records, run.tokenizer, max_length=run.config.data.max_tokens)
    if run.task.records == "questions":
        vqa = run.config.vqa
        encoded.columns |= task_batches.weighted_answers(
            records, run.tokenizer, slots=vqa.answers_per_question, max_length=vqa.answer_tokens)
    return encoded


# Evaluation.


class Evaluator:
    """The evaluation of a run's task, compiled once."""

    def __init__(self, run):
        self.run, self.functions = run, run.task.functions()

    def __call__(self, params, records, *, progress=None):
        """(result as far as the model decides it, predictions: answers or numbers of classes)."""
        params = jax.tree.map(lambda x: x.addressable_data(0), params)
        kind = self.run.task.records
        evaluate = {"questions": self._answers, "captions": self._assignment}.get(kind, self._classes)
        return evaluate(params, records, progress or (lambda stage, done, total: None))

    def _batches(self, records, progress, stage):
        config = self.run.config
        encoded = task_batches.encode_texts(records, self.run.tokenizer, max_length=config.data.max_tokens)
        done = 0
        for images, ids, valid in task_batches.eval_batches(
                records, encoded, image_size=config.data.image_size, batch_size=config.eval.batch_size):
            yield images, ids, valid
            done += valid
            progress(stage, done, len(records))

    def _answers(self, params, records, progress):
        config, answers = self.run.config, answer_list(self.run)
        functions = AnswerFunctions(**{name: functools.partial(f, params) for name, f in self.functions.items()})
        ids = task_batches.encode_answers(self.run.tokenizer, answers, max_length=config.vqa.answer_tokens)
        found = []
        for images, questions, valid in self._batches(records, progress, "questions"):
            best, _ = rank_answers(functions, images[0], questions, ids, top_k=config.vqa.rank_top_k)
            found += [answers[i] for i in best[:valid, 0]]
        result = {"images": records.image_count, "questions": len(records), "answer_list": len(answers)}
        if all(records.answers):
            parts = answer_accuracy(found, records.answers, question_types=records.question_types,
                                    answer_types=records.answer_types)
            result |= {"accuracy": {"overall": parts["overall"], **parts["answer_types"]},
                       "question_types": parts["question_types"]}
        else:
            result["accuracy"] = None
        return result, found

    def _classes(self, params, records, progress):
        found = []
        for images, ids, valid in self._batches(records, progress, "sentences"):
            found += np.argmax(np.asarray(self.functions(params, images, ids)), axis=-1)[:valid].tolist()
        result = {"images": records.image_count, "sentences": len(records),
                  **classification_scores(found, records.labels, self.run.task.classes)}
        if self.run.config.task == "nlvr2":
            result["accuracy"]["consistency"] = consistency(found, records.labels, records.identifiers)
        return result, found

    def _assignment(self, params, records, progress):
        """Accuracy over drawn pairs of images; whole batches only, as these are one another's distractors."""
        first = dataclasses.replace(records, texts=[captions[0] for captions in records.texts])
        found, labels = [], []
        size = self.run.config.eval.batch_size
        for number, (images, ids, valid) in enumerate(self._batches(first, progress, "captions")):
            rows = np.arange(number * size, (number + 1) * size, dtype=np.int32)
            image = records.images[np.minimum(rows, len(records) - 1), 0].astype(np.int32)
            batch = {"image": images[0], "text": ids, "image": image, "index": rows}
            probabilities, drawn = self.functions(params, batch, number)
            found += np.argmax(np.asarray(probabilities), axis=-1)[:valid].tolist()
            labels += np.asarray(drawn)[:valid].tolist()
        return {"images": records.image_count, "captions": len(records),
                **classification_scores(found, labels, self.run.task.classes)}, found


def answer_list(run) -> list:
    """The answers a VQA run chooses from."""
    return json.loads((run.workdir / ANSWERS).read_text())


def evaluate(run, split: str, *, data: str = "", checkpoint: str = "best", progress=None) -> dict:
    """Full evaluation of a split, with chance and a blind baseline; written to `metrics/` in the workdir.

    Arguments as for `evaluate_run`. VQA also gets the file for the test server, `..._answers.json`.

    Returns:
      {"task", "data", "split", counts, "chance", "accuracy": {"overall": per cent, part: per cent}, ..., "baselines",
      "notes", "weights", "file"}.
    """
    records = load(run, split, data=data)
    result, found = Evaluator(run)(run.params(checkpoint=checkpoint), records, progress=progress)
    config, name = run.config, data or run.config.data.name
    result = {"task": config.task, "data": name, "split": split, "chance": _chance(run, result), **result,
              "baselines": _baselines(run, records) if config.eval.baselines else {}, "notes": _notes(result),
              "weights": config.eval.weights}
    path = run.workdir / "metrics" / f"{config.task}_{ranking.file_name(name)}_{ranking.file_name(split)}.json"
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
        if run.task.records == "questions":
            write_results(path.parent / f"{path.stem}_answers.json", records.identifiers, found,
                          expected_ids=records.identifiers)
    return {**result, "file": str(path)}


def _chance(run, result) -> dict:
    """What a model that knows nothing reaches, in per cent."""
    if run.task.records == "questions":
        return {"overall": 100 / result["answer_list"]}
    return {"overall": 100 / len(run.task.classes)}


def _baselines(run, records) -> dict:
    """What the text alone gives away: the most frequent answer, or class, of each text in training."""
    if run.task.records == "captions":
        return {}
    train = load(run, run.config.data.train_split)
    if run.task.records == "questions":
        if not all(records.answers):
            return {"blind_guess": None}
        guesses = blind_guess(train.texts, [collections.Counter(a).most_common(1)[0][0] for a in train.answers],
                              records.texts)
        scores = answer_accuracy(guesses, records.answers, question_types=records.question_types,
                                 answer_types=records.answer_types)
        return {"blind_guess": {"overall": scores["overall"], **scores["answer_types"]}}
    guesses = blind_guess(train.texts, train.labels.tolist(), records.texts)
    return {"blind_guess": classification_scores(guesses, records.labels, run.task.classes)["accuracy"]}


def _notes(result) -> list:
    return ["the answers of this split are secret: only the file for the server was written"] if (
        result["accuracy"] is None) else []
