"""What a task is: everything the rest of the program needs to know of pretraining or of a downstream task.

A task names the records it reads, builds its model, computes its loss, evaluates and predicts. The pipeline, the
training loop, checkpoints, evaluation, reports and the command line ask the task; none of them compares task names.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.models.towers import Sizes, sizes_of
from cbalign.training.microbatch import value_and_gradient
from cbalign.training.mixing_generator import with_generator
from cbalign.training.optimizer import alpha_ramp
from cbalign.training.row_dropout import RowwiseModel

if TYPE_CHECKING:
    from cbalign.data.columns import Columns
    from cbalign.data.records import Records
    from cbalign.evaluation.calls import Call, SplitSize
    from cbalign.tasks.transfer import Transfer

# Modules of a pretrained model that only tasks with a shared embedding space and queues use.
PRETRAINING_HEADS = ("matching_head/.*", "codebook/.*", "temperature/.*", "text_projection/.*")


@dataclasses.dataclass(eq=False)
class Split:
    """A split ready for evaluation: its records and their token columns."""

    records: Records
    columns: Columns

    def __len__(self) -> int:
        return len(self.records)

    def batches(self, *, image_size: int, batch_size: int):
        """Yields (flat dict of arrays, valid rows), in the order of the records."""
        from cbalign.data.pipeline import eval_batches

        return eval_batches(self.records, self.columns, image_size=image_size, batch_size=batch_size)


@dataclasses.dataclass
class Evaluation:
    """What a task found on a split.

    Attributes:
      result: figures as JSON; either "contrastive", "itm", "sum" (recalls) or "accuracy" among its keys.
      predictions: one entry a record where the task makes any, else None.
    """

    result: dict
    predictions: list | None = None


class Task(abc.ABC):
    """Base class of all tasks; a subclass overrides what differs.

    Attributes:
      name: as in `config.task`.
      record_kind: kind of record it reads, a key of `cbalign.data.datasets.schema.KINDS`.
      images_per_record: images each record has.
      uses_queue: whether training keeps momentum queues.
      starts_from: {name of the task whose parameters it may start from: the declared `Transfer`}.
      log_metrics: metrics shown in the log line and in plots, in this order, where they are present.
      result_kind: first part of the name of its result files.
      classes: names of its classes, where it has them.
      prediction_input: what `predict` takes besides images, in words; "" where there is nothing to predict.
      asset_files: files beside config.json that a run of the task needs.
      text_cleaning: how its texts are cleaned, a key of `cbalign.data.text.CLEANERS`.
    """

    name: ClassVar[str] = ""
    record_kind: ClassVar[str] = "captions"
    images_per_record: ClassVar[int] = 1
    uses_queue: ClassVar[bool] = False
    shares_embedding_space: ClassVar[bool] = False
    starts_from: ClassVar[Mapping[str, Transfer]] = {}
    log_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    result_kind: ClassVar[str] = ""
    classes: ClassVar[tuple[str, ...]] = ()
    prediction_input: ClassVar[str] = ""
    asset_files: ClassVar[tuple[str, ...]] = ()
    text_cleaning: ClassVar[str] = "caption"

    def __init__(self, config: Any, *, tokens: Mapping[str, int]):
        """Builds the model of a config.

        Args:
          config: checked, with durations in steps.
          tokens: {"pad", "cls", "sep", "mask", "unk", "vocab_size"} of the tokenizer.
        """
        self.config, self.tokens = config, tokens
        self.model = self.build_model(
            sizes_of(config.model, image_size=config.data.image_size, vocab_size=tokens["vocab_size"])
        )
        self.alpha = alpha_ramp(alpha=config.contrast.alpha, ramp_steps=config.contrast.alpha_ramp_steps)

    # Model and parameters.

    @abc.abstractmethod
    def build_model(self, sizes: Sizes) -> Any:
        """The Flax module of the task."""

    def init_params(self, rng) -> dict:
        """The student's parameters at random, float32."""
        size, length = self.config.data.image_size, self.config.data.max_tokens
        image, ids = np.zeros((1, size, size, 3), np.uint8), np.ones((1, length), np.int32)
        return jax.jit(self.model.init)(rng, image, ids)["params"]

    def teacher_params(self, params: dict) -> dict:
        """The part of the student that the momentum teacher follows; {} for no teacher."""
        return params if self.config.contrast.alpha else {}

    @property
    def trains_matching(self) -> bool:
        """Whether the image-text matching head is trained."""
        return False

    @property
    def trains_codebook(self) -> bool:
        """Whether the model has a codebook, and its codes are trained."""
        return False

    @property
    def second_view(self) -> bool:
        """Whether the teacher sees a second augmentation of the image."""
        return False

    @property
    def queue_size(self) -> int:
        """Entries of each momentum queue; 0 where there is none."""
        return self.config.queue.size if self.uses_queue else 0

    # Training.

    @classmethod
    def check(cls, config: Any, *, devices: int = 1) -> None:
        """Checks what this task needs of a config, on a number of devices, before anything is built.

        Raises:
          UserError: naming the field and a value that works.
        """
        batch, parts = config.train.batch_size, config.train.microbatches
        if batch % devices:
            raise UserError(
                f"train.batch_size={batch} does not divide over {devices} devices; use "
                f"{max(1, round(batch / devices)) * devices}"
            )
        if batch // devices % parts:
            raise UserError(f"train.microbatches={parts} does not divide the {batch // devices} records of a device")

    def encode(self, records: Records, tokenizer: Any, *, training: bool = False) -> Columns:
        """The token columns, labels and ids of records.

        Args:
          records: a split of them.
          tokenizer: of the run.
          training: whether texts are cut as for training; otherwise as for evaluation, where that differs.
        """
        from cbalign.data.columns import text_columns

        tokens, words = text_limits(self.config, training=training)
        return text_columns(records, tokenizer, max_length=tokens, max_words=words, cleaning=self.text_cleaning)

    @abc.abstractmethod
    def loss(self, params, teacher, queue, batch, *, rng, step):
        """The loss on some rows of one device, whole groups of them where the task groups rows.

        Args:
          params, teacher: parameter trees; the teacher's is {} where the task has none.
          queue: the momentum queues before this step, {} where the task has none.
          batch: flat dict of arrays [b, ...], as the pipeline documents it.
          rng: key of the step, equal on all devices.
          step: int32 scalar.

        Returns:
          (scalar, {metric: float32 scalar}); means over rows.
        """

    def value_and_grad(self, params, teacher, queue, batch, *, rng, step):
        """Steps 2 to 6 of the training step: the loss and its gradient on one device's rows.

        By default the gradient of `loss`, a micro-batch at a time.

        Returns:
          ((scalar, {"metrics": {metric: scalar}} and, where the task has queues, "keys", what they take), gradient).
        """

        def loss(params, rows):
            return self.loss(params, teacher, queue, rows, rng=rng, step=step)

        (value, metrics), gradient = value_and_gradient(
            loss, params, batch, microbatches=self.config.train.microbatches
        )
        return (value, {"metrics": metrics}), gradient

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the global batch a config trains on, {name: [N, ...]}."""
        count, side = self.config.train.batch_size, self.config.data.image_size
        image = jax.ShapeDtypeStruct((count, side, side, 3), np.uint8)
        return {
            **dict.fromkeys(("image", "image_second")[: self.images_per_record], image),
            "text": jax.ShapeDtypeStruct((count, self.config.data.max_tokens), np.int32),
            "index": jax.ShapeDtypeStruct((count,), np.int32),
            **{
                name: jax.ShapeDtypeStruct((count, *shape), dtype)
                for name, (shape, dtype) in self.label_shapes().items()
            },
            **({"image_teacher": image} if self.second_view else {}),
        }

    def label_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """{name: (shape without the batch's axis, dtype)} of what `loss` takes besides images, texts and places."""
        return {}

    @classmethod
    def check_groups(cls, config: Any, *, devices: int, least: int) -> None:
        """Checks that groups of `itm.group_size` rows are the same on any number of devices.

        Rows of one group interact (negatives, distractors), so a group lies whole in a micro-batch of one device, or
        spans whole devices.

        Raises:
          UserError: naming the field and a value that works.
        """
        batch, parts, group = config.train.batch_size, config.train.microbatches, config.itm.group_size
        rows = batch // devices // parts
        if group < least:
            raise UserError(f"itm.group_size={group} must be {least} or more for the task {cls.name}")
        if group > batch or batch % group:
            fitting = max(size for size in _divisors(batch) if size <= group)
            raise UserError(f"itm.group_size={group} does not divide train.batch_size={batch}; use {fitting}")
        if rows % group == 0:
            return
        if parts > 1:
            raise UserError(
                f"train.microbatches={parts} cuts the {batch // devices} records of a device into parts of {rows}, "
                f"which do not hold whole groups of itm.group_size={group}; use fewer micro-batches, or smaller groups"
            )
        if group % rows:
            raise UserError(
                f"itm.group_size={group} neither divides the {rows} records of a device nor is a multiple of them; use "
                f"{rows}, or another number of devices than {devices}"
            )

    def group_devices(self, rows: int) -> int:
        """How many devices a group spans when each has `rows` rows; 1 where it lies within one."""
        return max(1, self.config.itm.group_size // rows)

    def student(self, params, rows, rng) -> RowwiseModel:
        """The model with the student's parameters and the step's dropout, for rows of the global batch."""
        rng = with_generator(jax.random.fold_in(rng, 0), self.config.model.dropout_generator)
        return RowwiseModel(self.model, params, rows, rng)

    def teacher(self, params, rows, rng, *, stream: int = 1) -> RowwiseModel:
        """The same with the teacher's parameters, without gradient; `stream` separates its passes' noise."""
        rng = with_generator(jax.random.fold_in(rng, stream), self.config.model.dropout_generator)
        rng = rng if self.config.teacher.dropout else None
        return RowwiseModel(self.model, jax.lax.stop_gradient(params), rows, rng)

    def chance_levels(self) -> dict[str, float]:
        """{metric: its value, in nats or as a share, for a model that knows nothing}."""
        return {}

    # Evaluation and prediction.

    @abc.abstractmethod
    def evaluate(self, params, split: Split, *, quick: bool = False, progress: Callable | None = None) -> Evaluation:
        """Evaluates parameters on a split.

        Args:
          params: the student's tree, on the devices.
          split: records and columns.
          quick: leave out what training does not need to compare checkpoints.
          progress: called as progress(stage, done, total).
        """

    def evaluation_calls(self, size: SplitSize, *, devices: int, quick: bool = False) -> list[Call]:
        """What `evaluate` asks of a process's devices on a split of that size, for plans; [] where it is not known."""
        del size, devices, quick
        return []

    def baselines(self, split: Split, train: Callable[[], Split], *, own_data: bool) -> tuple[dict, list[str]]:
        """What needs no model: ({name: figures shaped as the result's}, notes).

        Args:
          split: that is evaluated.
          train: opens the run's training split.
          own_data: whether both come from the same data set, so that ids mean the same.
        """
        del split, train, own_data
        return {}, []

    def headline(self, result: dict) -> dict[str, float]:
        """The figures by which checkpoints are compared; their mean is maximised."""
        return {"accuracy": result["accuracy"]["overall"]}

    def write_predictions(self, path: Any, split: Split, predictions: list | None) -> None:
        """Writes what others take of the predictions beside a result file, if there is such a thing."""

    def truths(self, split: Split, row: int) -> tuple[str, ...]:
        """The right answers to a record, as `predict` names them, the most frequent first; () where none are public."""
        del split, row
        return ()

    def assets(self, records: Records) -> dict[str, Any]:
        """{name of `asset_files`: its JSON content}, made from the training records when a run starts."""
        del records
        return {}

    def use_assets(self, assets: Mapping[str, Any], tokenizer: Any) -> None:
        """Takes the content of `asset_files` when a run is opened."""

    def share_assets(self, other: Task) -> None:
        """Takes over what `use_assets` gave another task object of the same run."""

    def predict(self, params, images: tuple, ids, *, match: bool = False) -> tuple[list[str], np.ndarray]:
        """Answers about images.

        Args:
          params: on this process's devices.
          images: `images_per_record` arrays uint8 [1, S, S, 3].
          ids: int32 [1, L], the encoded text.
          match: ask the matching head whether the text fits the image, where the task trains one.

        Returns:
          (names, probabilities float32 [len(names)]).

        Raises:
          UserError: the task predicts no such thing.
        """
        raise UserError(f"a run of {self.name} makes no predictions of this kind")


def text_limits(config: Any, *, training: bool = False) -> tuple[int, int]:
    """(tokens, words) a text is cut to, in training or else in evaluation and prediction."""
    data, evaluation = config.data, config.eval
    if training:
        return data.max_tokens, data.max_words
    return evaluation.max_tokens or data.max_tokens, evaluation.max_words or data.max_words


def _divisors(number: int) -> set[int]:
    """All divisors; quick also for a batch size that somebody mistyped."""
    small = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    return {*small, *(number // size for size in small)}


def no_progress(stage: str, done: int, total: int) -> None:
    """Stands for a progress callback that nobody gave."""
