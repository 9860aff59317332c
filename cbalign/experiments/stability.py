"""Stability of a run, measured on its checkpoints: how much the same pairs move from epoch to epoch."""

import itertools
from typing import Any

import jax
import numpy as np

from cbalign.evaluation.encoders import compiled_methods
from cbalign.evaluation.stability import compare, softmax
from cbalign.experiments.run_status import stability_path
from cbalign.losses.transport import cosine_cost, row_normalise, transport_plan
from cbalign.models.alignment import before_mixture
from cbalign.runs.workdir import CHECKPOINTS, Run
from cbalign.storage import read_json, write_json
from cbalign.training.run_log import LOSSES

PAIRS = 512
"""Training pairs that are compared."""

MEASURES = ("changed", "moved", "decorrelated")


def measure_run(run: Run, *, pairs: int = PAIRS) -> dict:
    """Compares codes and instances between consecutive checkpoints and writes metrics/stability.json.

    The pairs are spread evenly over the training split, each with its first caption and its image without augmentation,
    and are encoded by the teacher, whose features make the targets of both kinds:

        codes      distributions: rows of the transport plan of all pairs; similarities: cosines with the codes
        instances  distributions: softmax of the cosines with other pairs' features of the other modality, at the
                   checkpoint's temperature; similarities: the cosines. As many other pairs as there are codes.

    Args:
      run: from `open_run`, with the checkpoints to compare still in place.
      pairs: to look at, or all pairs where there are fewer.

    Returns:
      {"pairs", "steps": of the checkpoints, "codes": {measure: [one an interval]} or None where the codebook is off,
      "instances": the same, "loss", "gradient_norm": {"deviation": from step to step, mean over the epochs after the
      first, "relative": it divided by the mean}, from losses.json}. Figures of codes and instances are means over both
      modalities.
    """
    images, ids = _probe(run, pairs)
    steps, codes_too = checkpoint_steps(run), bool(run.config.loss_weights.code)
    profiles = [_profiles(run, step, images, ids, codes_too=codes_too) for step in steps]
    result: dict[str, Any] = {"pairs": len(ids), "steps": steps}
    for kind in ("codes", "instances"):
        present = kind != "codes" or codes_too
        result[kind] = _intervals([profile[kind] for profile in profiles]) if present else None
    for term in ("loss", "gradient_norm"):
        result[term] = _spread(read_json(run.workdir / LOSSES) or {}, term)
    write_json(stability_path(run.workdir), result)
    return result


def checkpoint_steps(run: Run) -> list[int]:
    """The steps of a run's checkpoints, oldest first."""
    return sorted(int(path.name) for path in (run.workdir / CHECKPOINTS).iterdir() if path.name.isdigit())


def _probe(run: Run, pairs: int):
    """Images uint8 [n, S, S, 3] and texts int32 [n, L] of pairs spread over the training split."""
    from cbalign.data.pipeline import eval_batches

    records, columns = run.train_split.records, run.train_split.columns
    rows = np.unique(np.linspace(0, len(records) - 1, min(pairs, len(records))).astype(int))
    batches = eval_batches(records, columns, image_size=run.config.data.image_size, batch_size=256, rows=rows)
    taken = [(batch["image"][:valid], batch["text"][:valid]) for batch, valid in batches]
    return tuple(np.concatenate(parts) for parts in zip(*taken))


def _profiles(run: Run, step: int, images, ids, *, codes_too: bool) -> dict:
    """{"codes", "instances": {modality: {"similarities", "distributions"}}} at one checkpoint."""
    shapes = jax.eval_shape(run.task.init_params, jax.random.key(0))
    state = run.restore({"params": shapes, "teacher": run.task.teacher_params(shapes)}, checkpoint=str(step))
    params, teacher = (jax.tree.map(lambda x: x.addressable_data(0), state[name]) for name in ("params", "teacher"))
    # As in training: where features are mixtures of codes, the teacher mixes the student's.
    teacher = {**teacher, "codebook": params["codebook"]}
    encode = compiled_methods(run.task.model)
    sides = {name: encode[name](teacher, inputs) for name, inputs in (("image", images), ("text", ids))}
    features = {name: np.asarray(side["feature"]) for name, side in sides.items()}
    projected = {name: np.asarray(before_mixture(side)) for name, side in sides.items()}
    tau = float(params["temperature"]["value"])
    profiles = {"instances": _instances(features, tau, run.config.codebook.num_codes)}
    if codes_too:
        codes = run.task.model.apply({"params": params}, method="codes")
        profiles["codes"] = {name: _codes(x, codes, run.config.codebook) for name, x in projected.items()}
    return profiles


def _codes(features, codes, options) -> dict:
    cost = cosine_cost(features, codes)
    plan = transport_plan(
        cost, solver=options.solver, beta=options.beta, iterations=options.iterations, epsilon=options.epsilon
    )
    return {"similarities": 1.0 - np.asarray(cost), "distributions": np.asarray(row_normalise(plan))}


def _instances(features: dict, temperature: float, candidates: int) -> dict:
    """Each modality's features against the first `candidates` pairs of the other one, without the pair's own."""
    profiles = {}
    for name, other in (("image", "text"), ("text", "image")):
        scores = features[name] @ features[other][:candidates].T
        np.fill_diagonal(scores, -np.inf)
        profiles[name] = {"similarities": scores, "distributions": softmax(scores / temperature)}
    return profiles


def _intervals(profiles: list) -> dict:
    """{measure: [the mean over both modalities between one checkpoint and the next]}."""
    found = {measure: [] for measure in MEASURES}
    for before, after in itertools.pairwise(profiles):
        each = [compare(before[name], after[name]) for name in ("image", "text")]
        for measure in MEASURES:
            found[measure].append(float(np.mean([figures[measure] for figures in each])))
    return found


def _spread(losses: dict, term: str) -> dict | None:
    """{"deviation", "relative"} of a term of losses.json; of a run of one epoch, that one; None without any."""
    epochs = [epoch for epoch in losses.get("epochs", ()) if term in epoch["deviations"]]
    epochs = epochs[1:] or epochs
    if not epochs:
        return None
    deviation = float(np.mean([epoch["deviations"][term] for epoch in epochs]))
    return {"deviation": deviation, "relative": deviation / float(np.mean([epoch["means"][term] for epoch in epochs]))}
