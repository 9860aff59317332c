"""Stability of a run, measured on its checkpoints: the same pairs from epoch to epoch."""

import dataclasses
import json

import jax
import numpy as np

from cbalign.runs.ranking import all_images, model_functions
from cbalign.runs.workdir import Run
from cbalign.evaluation.stability import compare, softmax
from cbalign.losses.transport import cosine_cost, row_normalise, transport_plan
from cbalign.experiments.run_status import read_json
from cbalign.training.checkpoints import Checkpoints

PAIRS = 512
"""Training pairs that are looked at."""

MEASURES = ("changed", "moved", "decorrelated")


def measure_run(run: Run, *, pairs: int = PAIRS) -> dict:
    """Compares codes and instances between consecutive checkpoints and writes metrics/stability.json.

    The pairs are spread evenly over the training split, each with its first caption and its image as it is, and are
    encoded by the teacher, whose features make the targets of both kinds:

        codes      distributions: rows of the transport plan of all pairs; similarities: cosines with the codes
        instances  distributions: softmax of the cosines with other pairs' features of the other modality, at the
                   checkpoint's temperature; similarities: the cosines. As many other pairs as there are codes.

    Args:
      run: from `open_run`, with the checkpoints that are to be compared still in place.
      pairs: to look at; all there are where there are fewer.

    Returns:
      {"pairs", "steps": of the checkpoints, "codes": {measure: [one an interval]} or None where the codebook is off,
      "instances": the same, "loss", "gradient_norm": {"deviation": from step to step, mean over the epochs after the
      first, "relative": it divided by the mean}, from losses.json}. Figures of codes and instances are means over both
      modalities.
    """
    images, ids = _probe(run, pairs)
    steps = sorted(int(path.name) for path in (run.workdir / "checkpoints").iterdir() if path.name.isdigit())
    codes_too, profiles = bool(run.config.loss_weights.code), []
    encode = model_functions(run.task.model)
    for step in steps:
        profiles.append(_profiles(run, encode, step, images, ids, codes_too=codes_too))
    result = {"pairs": len(ids), "steps": steps}
    for kind in ("codes", "instances"):
        present = kind != "codes" or codes_too
        result[kind] = _intervals([profile[kind] for profile in profiles]) if present else None
    for term in ("loss", "gradient_norm"):
        result[term] = _spread(read_json(run.workdir / "losses.json") or {}, term)
    folder = run.workdir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stability.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _probe(run, pairs):
    """Images uint8 [n, S, S, 3] and texts int32 [n, L] of pairs spread over the training split."""
    records = run.train_records
    chosen = np.unique(np.linspace(0, len(records) - 1, min(pairs, len(records))).astype(int))
    part = dataclasses.replace(
        records, images=[records.images[i] for i in chosen], captions=[records.captions[i][:1] for i in chosen],
        token_ids=records.token_ids[records.caption_offsets[chosen]], caption_offsets=np.arange(len(chosen) + 1),
        ids=records.ids[chosen], names=[records.names[i] for i in chosen],
    )
    return all_images(part, run.config.data.image_size), part.token_ids


def _profiles(run, encode, step, images, ids, *, codes_too) -> dict:
    """{"codes", "instances": {modality: {"similarities", "distributions"}}} at one checkpoint."""
    params, teacher = _restore(run, step)
    features = {
        "image": np.asarray(encode["image"](teacher, images)["feature"]),
        "text": np.asarray(encode["text"](teacher, ids)["feature"]),
    }
    profiles = {"instances": _instances(features, float(params["temperature"]["value"]), run.config.codebook.num_codes)}
    if codes_too:
        codes = run.task.model.apply({"params": params}, method="codes")
        profiles["codes"] = {name: _codes(x, codes, run.config.codebook) for name, x in features.items()}
    return profiles


def _restore(run, step):
    shapes = jax.eval_shape(run.task.init_params, jax.random.key(0))
    with Checkpoints(run.workdir / "checkpoints", keep=run.config.train.keep) as checkpoints:
        state = checkpoints.restore_fields({"params": shapes, "teacher": run.task.teacher_params(shapes)}, step=step)
    state = jax.tree.map(lambda x: x.addressable_data(0), state)
    return state["params"], state["teacher"]


def _codes(features, codes, options) -> dict:
    cost = cosine_cost(features, codes)
    plan = transport_plan(cost, solver=options.solver, beta=options.beta, iterations=options.iterations,
                          epsilon=options.epsilon)
    return {"similarities": 1.0 - np.asarray(cost), "distributions": np.asarray(row_normalise(plan))}


def _instances(features, temperature, candidates) -> dict:
    """Each modality's features against the first `candidates` pairs of the other one, the pair's own left out."""
    profiles = {}
    for name, other in (("image", "text"), ("text", "image")):
        scores = features[name] @ features[other][:candidates].T
        np.fill_diagonal(scores, -np.inf)
        profiles[name] = {"similarities": scores, "distributions": softmax(scores / temperature)}
    return profiles


def _intervals(profiles) -> dict:
    """{measure: [the mean over both modalities between one checkpoint and the next]}."""
    found = {measure: [] for measure in MEASURES}
    for before, after in zip(profiles, profiles[1:]):
        each = [compare(before[name], after[name]) for name in ("image", "text")]
        for measure in MEASURES:
            found[measure].append(float(np.mean([figures[measure] for figures in each])))
    return found


def _spread(losses, term) -> dict | None:
    """{"deviation", "relative"} of a term of losses.json; of a run of one epoch, that one; None without any."""
    epochs = [epoch for epoch in losses.get("epochs", ()) if term in epoch["deviations"]]
    epochs = epochs[1:] or epochs
    if not epochs:
        return None
    deviation = float(np.mean([epoch["deviations"][term] for epoch in epochs]))
    return {"deviation": deviation, "relative": deviation / float(np.mean([epoch["means"][term] for epoch in epochs]))}
