"""Where a trained model comes from: a run's folder, exported weights, or weights released with this package."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from etils import epath

from cbalign.runs.workdir import Run, open_run
from cbalign.tasks import Task

SEARCH = "search"
"""Folder of a workdir that keeps the features of searched folders."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A model ready for use.

    Attributes:
      name: what the user named, for messages.
      task: the task it was trained for, with its model and config.
      tokenizer: of its vocabulary.
      params: tree of parameters to evaluate with.
      cache: folder for the features of searched folders; None for one among the user's cache files.
    """

    name: str
    task: Task
    tokenizer: Any
    params: dict
    cache: epath.Path | None = None


def open_source(source: Source | Run | os.PathLike | str, *, checkpoint: str = "best") -> Source:
    """Opens a trained model.

    Args:
      source: an opened run, or what `open_run` takes. A `Source` is returned as it is.
      checkpoint: of a run, see `Run.params`.

    Raises:
      UserError: there is nothing of that name, it is damaged, or it is no complete model.
    """
    if isinstance(source, Source):
        return source
    run = source if isinstance(source, Run) else open_run(source)
    cache = None if run.exported else run.workdir / SEARCH
    return Source(run.name, run.task, run.tokenizer, run.params(checkpoint=checkpoint), cache)
