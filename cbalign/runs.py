"""A run and its folder: where config, vocabulary, data, task and checkpoints come together.

The workdir is self-contained: `config.json` and `vocab.txt` say what was trained, `checkpoints/` holds the state,
`metrics/` the results of evaluations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np
from etils import epath, epy

from cbalign import provenance
from cbalign.config import check_config, field_names, from_json, resolve_epochs, to_json
from cbalign.data import text
from cbalign.errors import UserError
from cbalign.evaluation.baselines import bag_of_words, pixel_nearest_neighbour
from cbalign.evaluation.retrieval import Functions, evaluate_retrieval
from cbalign.tasks.pretrain import Pretrain
from cbalign.training import parallel
from cbalign.training.checkpoint import Checkpoints

# They bring tensorflow and TensorBoard along, seconds that only those who read records or train should wait for.
with epy.lazy_imports():
    from cbalign.data import pipeline
    from cbalign.data.sources import catalogue
    from cbalign.training import loop

# Fields that may change from one start of a run to the next: they do not touch what is learned.
_FREE_FIELDS = ("data.dir", "data.threads", "train.log_steps", "train.checkpoint_steps", "train.keep", "train.eval_steps")
# Strength of the bag-of-words baseline's ridge, relative to the mean variance of a pixel; of 0.1, 0.3 and 1 the best on
# the validation vendor of `emoji`.
_RIDGE = 0.3


@dataclasses.dataclass
class Run:
    """An opened workdir.

    Attributes:
      workdir: the folder.
      config: as stored there.
      tokenizer: of its vocabulary.
      task: the task with its model.
    """

    workdir: epath.Path
    config: Any
    tokenizer: Any
    task: Pretrain

    def records(self, split: str, *, data: str = "") -> pipeline.Records:
        """A split of the run's data set, or of another one, encoded with the run's vocabulary."""
        loaded = catalogue.load_split(data or self.config.data.name, split, self.config.data.dir or None)
        return pipeline.Records.from_split(loaded, self.tokenizer, max_length=self.config.data.max_tokens)

    @functools.cached_property
    def train_records(self) -> pipeline.Records:
        """The training split."""
        return self.records(self.config.data.train_split)

    def params(self, *, checkpoint: str = "best"):
        """The parameters to evaluate with, on the devices.

        Args:
          checkpoint: "best" (the newest where none was told best), "latest", or a step.

        Returns:
          The student's tree; where `eval.weights` is "teacher", with the teacher's part in its place.
        """
        shapes = {"params": jax.eval_shape(self.task.init_params, jax.random.key(0))}
        if self.config.eval.weights == "teacher":
            shapes["teacher"] = self.task.teacher_params(shapes["params"])
        with Checkpoints(self.workdir / "checkpoints", keep=self.config.train.keep) as checkpoints:
            best = checkpoints.best_step() if checkpoint == "best" else None
            step = int(checkpoint) if checkpoint.isdigit() else best
            state = checkpoints.restore_fields(shapes, step=step)
        return {**state["params"], **state.get("teacher", {})}


def evaluated_params(state, config):
    """The parameters of a state that `config.eval.weights` names; the teacher lacks head and temperature."""
    return {**state.params, **state.teacher} if config.eval.weights == "teacher" else state.params


def open_run(workdir) -> Run:
    """Opens a workdir that `cbalign train` wrote.

    Raises:
      UserError: there is none.
    """
    workdir = epath.Path(workdir)
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} is not the folder of a run (no config.json); make one with `cbalign train`")
    return _assemble(workdir, from_json((workdir / "config.json").read_text()))


def _assemble(workdir, config) -> Run:
    tokenizer = text.load_tokenizer(workdir / "vocab.txt")
    return Run(workdir, config, tokenizer, Pretrain(config, tokens=text.special_ids(tokenizer)))


def start_run(config, workdir) -> tuple[Run, int]:
    """Makes the workdir of a config, or opens the one that has it.

    Args:
      config: checked; durations in epochs are turned into steps.
      workdir: a new folder, or one of the same config.

    Returns:
      (the run, steps per epoch).

    Raises:
      UserError: the folder holds another config, or something else; the data set or the vocabulary is missing.
    """
    workdir = epath.Path(workdir)
    _check_workdir(workdir)
    split = catalogue.load_split(config.data.name, config.data.train_split, config.data.dir or None)
    steps_per_epoch = pipeline.steps_per_epoch(len(split["images"]), config.train.batch_size)
    config = resolve_epochs(config, steps_per_epoch=steps_per_epoch)
    check_config(config)
    if (workdir / "config.json").exists():
        _check_same(from_json((workdir / "config.json").read_text()), config, workdir)
    loop.check_devices(config)
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        _write_vocabulary(config, split["captions"], workdir / "vocab.txt")
        (workdir / "config.json").write_text(to_json(config))
    parallel.barrier("workdir")
    run = _assemble(workdir, config)
    run.train_records = pipeline.Records.from_split(split, run.tokenizer, max_length=config.data.max_tokens)
    return run, steps_per_epoch


def _check_workdir(workdir) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; name a folder")
    if workdir.exists() and any(workdir.iterdir()) and not (workdir / "config.json").exists():
        raise UserError(f"--workdir={workdir} holds other things and is not the folder of a run; name a new folder")


def _check_same(stored, config, workdir) -> None:
    """Raises UserError where the config would change what a run in progress learns."""
    differences = []
    for name in field_names(config):
        if name in _FREE_FIELDS or name.startswith("eval."):
            continue
        old, new = (functools.reduce(lambda section, part: section[part], name.split("."), c) for c in (stored, config))
        if old != new:
            differences.append(f"{name} {old!r} -> {new!r}")
    if differences:
        raise UserError(f"{workdir} holds a run with another config ({'; '.join(differences)}); name a new --workdir, "
                        "or remove that folder")


def _write_vocabulary(config, captions, path) -> None:
    """Puts the vocabulary beside the run: a trained one, or a copy of the named one."""
    if path.exists():
        return
    if config.data.vocabulary:
        tokenizer = text.load_tokenizer(config.data.vocabulary)
        words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        path.write_text("".join(f"{word}\n" for word, _ in words))
    else:
        cleaned = (text.clean_caption(caption) for group in captions for caption in group)
        text.train_vocabulary(cleaned, path, size=config.data.vocabulary_size)


def train(config, workdir, *, command: str = "") -> loop.Outcome:
    """Trains, or goes on with, the run of a config in a workdir.

    Args:
      config: checked.
      workdir: as for `start_run`.
      command: what the user typed, for run.json.
    """
    run, steps_per_epoch = start_run(config, workdir)
    config, data = run.config, run.config.data
    sets = {split: GallerySet.of(run, split) for split in config.eval.splits}
    functions = model_functions(run.task.model)

    def batches(step):
        return pipeline.train_batches(
            run.train_records, seed=config.seed, start_step=step, global_batch=config.train.batch_size,
            process_index=jax.process_index(), process_count=jax.process_count(), image_size=data.image_size,
            scale=data.crop_scale, flip=data.flip, rand_augment=data.rand_augment, color=data.color,
            second_view=data.second_view, threads=data.threads or None,
        )

    def evaluate(state, step):
        params = evaluated_params(state, config)
        return {split: _retrieve(functions, params, gallery, config, rerank=False) for split, gallery in sets.items()}

    with _recorded(run.workdir, command) as end:
        outcome = loop.run(run.task, config, workdir=run.workdir, batches=batches, steps_per_epoch=steps_per_epoch,
                           evaluate=evaluate if sets else None)
        end.update(step=outcome.step, interrupted_by=outcome.interrupted_by)
    return outcome


def _recorded(workdir, command):
    """Notes in run.json how the run was made and how it ended; one process does."""
    if jax.process_index():
        return contextlib.nullcontext({})
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return provenance.recorded(workdir, command=command, devices=devices, processes=jax.process_count())


@dataclasses.dataclass
class GallerySet:
    """Pictures and texts of a split to retrieve among.

    Attributes:
      records: the split.
      texts: the captions in the gallery.
      token_ids: int32 [n_t, L] of them.
      text_ids: int32 [n_t], the id of each text's picture.
    """

    records: pipeline.Records
    texts: list
    token_ids: np.ndarray
    text_ids: np.ndarray

    @classmethod
    def of(cls, run: Run, split: str, *, data: str = "") -> "GallerySet":
        """The first `eval.captions_per_image` captions of each picture; equal texts of one id stand once."""
        records = run.records(split, data=data)
        limit = run.config.eval.captions_per_image or max(len(group) for group in records.captions)
        rows, seen = [], set()
        for i, group in enumerate(records.captions):
            for j, caption in enumerate(group[:limit]):
                if (key := (caption, int(records.ids[i]))) not in seen:
                    seen.add(key)
                    rows.append((i, int(records.caption_offsets[i]) + j, caption))
        return cls(
            records, [caption for _, _, caption in rows], records.token_ids[[row for _, row, _ in rows]],
            records.ids[[i for i, _, _ in rows]],
        )


def model_functions(model) -> dict:
    """The model's compiled methods {"image", "text", "match"}, each taking the parameters first."""
    apply = model.apply
    return {
        "image": jax.jit(lambda params, x: apply({"params": params}, x, method="encode_image")),
        "text": jax.jit(lambda params, x: apply({"params": params}, x, method="encode_text")),
        "match": jax.jit(lambda params, tokens, ids, image: apply(
            {"params": params}, apply({"params": params}, tokens, ids, image, method="fuse"), method="match")),
    }


def bind(functions: dict, params) -> Functions:
    """The evaluator's functions with parameters, on this process's first device."""
    params = jax.tree.map(lambda x: x.addressable_data(0), params)
    return Functions(
        encode_image=functools.partial(functions["image"], params),
        encode_text=functools.partial(functions["text"], params),
        match=functools.partial(functions["match"], params),
        temperature=float(params["temperature"]["value"]),
    )


def _retrieve(functions, params, gallery, config, *, rerank, progress=None) -> dict:
    images = pipeline.eval_images(gallery.records, image_size=config.data.image_size, batch_size=config.eval.batch_size)
    return evaluate_retrieval(
        bind(functions, params), images, gallery.token_ids, image_ids=gallery.records.ids, text_ids=gallery.text_ids,
        top_k=config.eval.rerank_top_k, batch_size=config.eval.batch_size, rerank=rerank, progress=progress,
    )


def evaluate(run: Run, split: str, *, data: str = "", checkpoint: str = "best", progress=None) -> dict:
    """Full retrieval evaluation of a split, with baselines; written to `metrics/` in the workdir.

    Args:
      run: from `open_run`.
      split: of the data set.
      data: another data set than the run's, by name or folder.
      checkpoint: see `Run.params`.
      progress: see `evaluate_retrieval`.

    Returns:
      The result that `format_table` takes, with "file", where it was written.
    """
    gallery = GallerySet.of(run, split, data=data)
    params = run.params(checkpoint=checkpoint)
    result = _retrieve(model_functions(run.task.model), params, gallery, run.config, rerank=True, progress=progress)
    name = data or run.config.data.name
    baselines = _baselines(run, gallery, own_data=name == run.config.data.name) if run.config.eval.baselines else {}
    result = {"data": name, "split": split, **result, "baselines": baselines, "weights": run.config.eval.weights}
    folder = run.workdir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"retrieval_{_file_name(name)}_{_file_name(split)}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return {**result, "file": str(path)}


def _file_name(name: str) -> str:
    """A data set's or split's name as part of a file's."""
    name = epath.Path(name).name if epath.Path(name).is_dir() else name
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def all_pictures(records, image_size: int) -> np.ndarray:
    """All pictures of a split, resized: uint8 [n, S, S, 3]."""
    batches = pipeline.eval_images(records, image_size=image_size, batch_size=256)
    return np.concatenate([batch[:valid] for batch, valid in batches])


def _baselines(run: Run, gallery: GallerySet, *, own_data: bool) -> dict:
    """What raw pixels and word counts reach on the same gallery, learned from the run's training split.

    Ids mean nothing from one data set to another, so that the nearest neighbour, which goes by them, is left out there.
    """
    size = run.config.data.image_size
    train, images = all_pictures(run.train_records, size), all_pictures(gallery.records, size)
    return {
        "pixel_nearest_neighbour": pixel_nearest_neighbour(
            train, run.train_records.ids, images, gallery.records.ids, gallery.text_ids) if own_data else None,
        "bag_of_words": bag_of_words(
            train, run.train_records.captions, images, gallery.texts, gallery.records.ids, gallery.text_ids,
            ridge=_RIDGE),
    }
