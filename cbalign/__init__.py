"""cbalign: image-text alignment with a representation codebook (CODIS, CVPR 2022) in JAX and Flax.

    import cbalign

    cbalign.train("emoji", "runs/emoji")
    cbalign.evaluate("runs/emoji", split="test_vendor")
    model = cbalign.load("runs/emoji")
    model.similarity("truck.png", ["a delivery truck", "a red apple"])

Importing the package imports neither jax nor tensorflow; what needs them imports them when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cbalign.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from cbalign.inference.model import Model, load
    from cbalign.runs.workdir import Run
    from cbalign.training.loop import Outcome

__version__ = "0.1.0"
__all__ = ["Model", "UserError", "__version__", "evaluate", "load", "train"]

_LAZY = {"Model": "cbalign.inference.model", "load": "cbalign.inference.model"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def train(config: ConfigDict | os.PathLike | str, workdir: os.PathLike | str, overrides: Iterable[str] = ()) -> Outcome:
    """Trains, or resumes, a run, as `cbalign train` does.

    Args:
      config: a config, or the name or file of one ("emoji", "paper/pretrain", "my_config.py"); unchanged.
      workdir: a new folder, or one that holds a run of the same config.
      overrides: changes of fields, "train.steps=2000" each.

    Returns:
      How training ended: the step, and the signal that interrupted it, if any.

    Raises:
      UserError: a config, data, weights or folder that cannot be used.
    """
    from cbalign.config import load_config, override
    from cbalign.runs.train import train_run

    if isinstance(config, str | os.PathLike):
        config = load_config(os.fspath(config), overrides)
    else:
        config = config.copy_and_resolve_references()
        override(config, overrides)
    return train_run(config, workdir)


def evaluate(
    run: Run | os.PathLike | str,
    split: str = "",
    *,
    data: str = "",
    checkpoint: str = "best",
    settings: ConfigDict | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluates a run on a split, with chance and baselines, as `cbalign evaluate` does.

    Args:
      run: the workdir of a run, or the run opened with `cbalign.runs.workdir.open_run`.
      split: of the data set; by default the first of the config's `eval.splits`.
      data: another data set than the run's, by name or folder.
      checkpoint: "best" (the newest where no metric chose one), "latest", or a step.
      settings: a config to evaluate by: its data set, image size, text length, `eval` and `protocol` take the place of
        the run's own.
      progress: called as progress(stage, done, total).

    Returns:
      The figures, in per cent, with the baselines' and notes; "file" says where they were written.

    Raises:
      UserError: a run, checkpoint, split, data set or settings that cannot be used.
    """
    from cbalign.runs.evaluate import evaluate_run
    from cbalign.runs.workdir import open_run

    opened = open_run(run) if isinstance(run, str | os.PathLike) else run
    if not split:
        splits = (settings or opened.config).eval.splits
        if not splits:
            raise UserError("the config names no split to evaluate (eval.splits is empty); give split=...")
        split = splits[0]
    return evaluate_run(opened, split, data=data, checkpoint=checkpoint, settings=settings, progress=progress)
