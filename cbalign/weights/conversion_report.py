"""The report of a conversion, as data and as text: what was taken, left unused, and left to be initialised."""

import math
import re
from collections.abc import Iterable
from typing import Any

from cbalign.weights.key_matching import Matched, module_norms


def make_report(matched: Matched, shapes: dict, remarks: Iterable[str]) -> dict[str, Any]:
    """Every tensor by name, and counts and norms by module, in the checkpoint and as taken.

    Args:
      matched: the matched checkpoint.
      shapes: {"params/...": shape} of the whole model.
      remarks: notes beside those of the matching.

    Returns:
      The value of "report" in weights.json.
    """
    taken, modules = module_norms(matched.arrays), {}
    for name, shape in shapes.items():
        row = modules.setdefault("/".join(name.split("/")[:2]), {"parameters_of_model": 0})
        row["parameters_of_model"] += math.prod(shape)
    for module, (count, squares) in taken.items():
        there, there_squares = matched.parameters[module]
        modules.setdefault(module, {}).update(
            parameters_there=there, norm_there=there_squares**0.5, parameters_taken=count, norm_taken=squares**0.5
        )
    return {
        "matched": [[theirs, list(ours)] for theirs, ours in matched.pairs],
        "initialised": [name.removeprefix("params/") for name in matched.initialised],
        "unused": [list(pair) for pair in matched.unused],
        "teacher": any(name.startswith("teacher/") for name in matched.arrays),
        "queue": "queue/image" in matched.arrays,
        "modules": modules,
        "notes": [*matched.notes, *remarks],
    }


def format_report(info: dict) -> str:
    """The report of `convert` as text, with counts and norms."""
    report = info["report"]
    lines = [
        (
            f"{info['layout']}: {len(report['matched'])} tensors matched, {len(report['initialised'])} parameters "
            f"left to be initialised, {len(report['unused'])} tensors unused"
        )
    ]
    lines.append(f"{'module':<28}{'in the model':>14}{'in the file':>14}{'norm':>12}{'taken':>14}{'norm':>12}")
    lines += [_row(module, row) for module, row in report["modules"].items()]
    lines += [
        f"initialised by the run: {name}{f' ({count} tensors)' if count > 1 else ''}"
        for name, count in _grouped(report["initialised"]).items()
    ]
    lines.append(
        f"teacher: {'from the checkpoint' if report['teacher'] else 'a copy of the student'}; "
        f"queues: {'from the checkpoint' if report['queue'] else 'empty'}"
    )
    reasons = {}
    for name, reason in report["unused"]:
        reasons.setdefault(reason, []).append(name)
    lines += [f"unused, {reason}: {', '.join(names)}" for reason, names in reasons.items()]
    return "\n".join(lines + [f"note: {note}" for note in report["notes"]])


def _row(module, row) -> str:
    def cell(name, width, form):
        return f"{format(row[name], form) if name in row else '-':>{width}}"

    return (
        f"{module.removeprefix('params/'):<28}"
        + cell("parameters_of_model", 14, ",")
        + cell("parameters_there", 14, ",")
        + cell("norm_there", 12, ".4f")
        + cell("parameters_taken", 14, ",")
        + cell("norm_taken", 12, ".4f")
    )


def _grouped(names) -> dict:
    """Counts of tensors by module; cross-attention by layer part: {"fusion_encoder/layer_*/cross_attention": 16}."""
    groups = {}
    for name in names:
        parts = re.sub(r"layer_\d+", "layer_*", name).split("/")
        crossing = parts[0] == "fusion_encoder" and "cross_attention" in parts[2]
        key = "/".join(parts[:3] if crossing else parts[:1])
        groups[key] = groups.get(key, 0) + 1
    return groups
