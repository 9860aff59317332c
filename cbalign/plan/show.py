"""Plans as JSON and as tables."""

from __future__ import annotations

import dataclasses

from cbalign.plan.cost import SECONDS_PER_DAY

_MOST = 8


def as_json(config, topology, training, evaluations) -> dict:
    """The plan of one config on one topology."""
    compiled, time = training.compiled, training.time
    found = dataclasses.asdict(compiled)
    # The CPU compiler accepts any size, so the peak is also compared with the chip's memory.
    fits = found.pop("fits") and compiled.peak_bytes <= topology.memory_bytes
    return {
        "topology": str(topology),
        "chips": topology.chips,
        "devices": topology.devices,
        "exact": topology.chip.is_tpu,
        "pairs_per_device": config.train.batch_size // topology.devices,
        "fits": fits and all(one.peak_bytes <= topology.memory_bytes for one in evaluations),
        "memory_bytes": topology.memory_bytes,
        **found,
        "cached": training.cached,
        **dataclasses.asdict(training.cost),
        "basis": time.basis,
        "matmul_floor_seconds": time.matmul_floor,
        "memory_floor_seconds": time.memory_floor,
        "share_of_peak": time.share_of_peak,
        "evaluations": [dataclasses.asdict(one) for one in evaluations],
    }


def suite_json(topology, planned) -> dict:
    """The plan of a suite's rows on one topology."""
    rows = []
    for one in planned:
        plan, training = one.plan, one.plan.training
        fits = plan.peak_bytes <= topology.memory_bytes and (training is None or training.compiled.fits)
        rows.append(
            {
                "row": one.row.name,
                "config": one.row.config,
                "shared_with": one.shared_with,
                "fits": fits,
                "peak_bytes": plan.peak_bytes,
                "step_seconds": training.time.seconds if training else None,
                "share_of_peak": training.time.share_of_peak if training else None,
                "basis": training.time.basis if training else "",
                "steps": training.cost.steps if training else 0,
                "training_days": plan.training_days,
                "evaluation_days": plan.evaluation_days,
                "days": plan.days,
                "chip_hours": plan.days * 24 * topology.chips,
                "evaluations": [
                    {"during_training": count, **dataclasses.asdict(evaluation)}
                    for count, evaluation in (*plan.during, *((0, evaluation) for evaluation in plan.after))
                ],
                "not_planned": list(plan.unknown),
            }
        )
    return {
        "topology": str(topology),
        "chips": topology.chips,
        "exact": topology.chip.is_tpu,
        "memory_bytes": topology.memory_bytes,
        "rows": rows,
        "days": sum(row["days"] for row in rows),
        "chip_hours": sum(row["chip_hours"] for row in rows),
    }


def suite_table(plan: dict) -> list[str]:
    """A line for each row, the sums, and notes."""
    about = "" if plan["exact"] else "about "
    head = (
        f"{plan['topology']}, {plan['chips']} chips of {gib(plan['memory_bytes'])}; memory is {about}that of one device"
    )
    names = ("row", "memory", "fits", "ms/step", "of peak", "steps", "training", "evaluation", "days", "chip-hours")
    cells = [names]
    for row in plan["rows"]:
        trained = row["step_seconds"] is not None
        cells.append(
            (
                row["row"],
                gib(row["peak_bytes"]),
                "yes" if row["fits"] else "NO",
                f"{1e3 * row['step_seconds']:,.0f}" if trained else "",
                f"{row['share_of_peak']:.0%}" if trained else "",
                f"{row['steps']:,}" if trained else "",
                f"{row['training_days']:.2f}",
                f"{row['evaluation_days']:.2f}",
                f"{row['days']:.2f}",
                f"{row['chip_hours']:,.0f}",
            )
        )
    sums = (f"{sum(row[key] for row in plan['rows']):.2f}" for key in _DAYS)
    cells.append(("sum", "", "", "", "", "", *sums, f"{plan['chip_hours']:,.0f}"))
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = [
        "  ".join(text.ljust(width) if not i else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths)))
        for row in cells
    ]
    return [head, *lines, *_suite_notes(plan["rows"])]


_DAYS = ("training_days", "evaluation_days", "days")


def _suite_notes(rows) -> list[str]:
    notes, shared = [], {}
    for row in rows:
        if row["shared_with"]:
            shared.setdefault(row["shared_with"], []).append(row["row"])
    for base, names in shared.items():
        notes.append(f"priced as {base}, from which they differ in losses alone: {', '.join(names)}")
    bases = {}
    for row in rows:
        if row["basis"]:
            bases.setdefault(row["basis"], []).append(row["row"])
    notes += [f"time from {basis}: {', '.join(names)}" for basis, names in bases.items()]
    left = sorted({name for row in rows for name in row["not_planned"]})
    if left:
        notes.append(f"evaluations not included, as the size of the split is not known: {', '.join(left)}")
    notes.append("waiting for data, the host's work in evaluations, and restarts are not included")
    return notes


def config_table(plans: list[dict]) -> list[str]:
    """One column per topology; then the classes of work, the collectives and the evaluations of each."""
    rows = [("", [plan["topology"] for plan in plans])]
    rows += [(label, [show(plan) for plan in plans]) for label, show in _ROWS]
    lines = _columns(rows)
    profiled = [plan for plan in plans if plan["profile"]]
    if profiled:
        lines += ["", *_classes(profiled)]
    for plan in plans:
        lines += _collectives(plan)
        for one in plan["evaluations"]:
            lines += _evaluation(plan, one)
    return lines


def _columns(rows) -> list[str]:
    width = max(len(cell) for _, cells in rows for cell in cells) + 2
    return [f"{label:<32}" + "".join(f"{cell:>{width}}" for cell in cells) for label, cells in rows]


def _classes(plans) -> list[str]:
    """Milliseconds of each class of work, the dearest first."""
    totals = {}
    for plan in plans:
        for name, seconds in plan["profile"]["classes"].items():
            totals[name] = totals.get(name, 0.0) + seconds / plan["profile"]["seconds"]

    def cell(plan, name):
        seconds = plan["profile"]["classes"].get(name, 0.0)
        return f"{1e3 * seconds:,.1f}  {seconds / plan['profile']['seconds']:4.0%}"

    rows = [("ms per step, by the compiler", [plan["topology"] for plan in plans])]
    rows += [(f"  {name}", [cell(plan, name) for plan in plans]) for name in sorted(totals, key=lambda x: -totals[x])]
    rows += [
        (f"  {name} beside other work", [f"{1e3 * plan['profile']['hidden'].get(name, 0.0):,.1f}" for plan in plans])
        for name in ("collectives", "copies")
    ]
    rows += [("  without the compiler's estimate", [f"{plan['profile']['unestimated']:.1%}" for plan in plans])]
    if any(plan["profile"]["unknown_loops"] for plan in plans):
        counts = [str(plan["profile"]["unknown_loops"]) for plan in plans]
        rows.append(("  loops counted once", counts))
    return _columns(rows)


def _collectives(plan) -> list[str]:
    found = plan["collectives"]
    if not found:
        return [f"{plan['topology']}: no collectives (one device, or the step does not fit)"]
    lines = [f"{plan['topology']}, collectives per device and step:"]
    for c in found[:_MOST]:
        how = "beside other work" if c["asynchronous"] else "blocking"
        lines.append(f"  {c['count']:>4} x {c['kind']:<20}{size(c['bytes']):>12}   among {c['devices']}, {how}")
    rest = found[_MOST:]
    if rest:
        total = size(sum(c["count"] * c["bytes"] for c in rest))
        lines.append(f"  {sum(c['count'] for c in rest):>4} smaller collectives, {total} in total")
    return lines


def _evaluation(plan, one) -> list[str]:
    count = one["size"]
    head = (
        f"{plan['topology']}, evaluation of {one['name']}: {count['records']:,} records, {count['texts']:,} texts, "
        f"{_time(one['seconds'])}, {size(one['peak_bytes'])} per device"
    )
    return [head, *map(_call, one["calls"])]


def _call(call) -> str:
    return (
        f"  {call['count']:>8,} x {call['name']:<20}{1e3 * call['seconds']:>10,.2f} ms, "
        f"{call['share_of_peak']:.0%} of peak, {_time(call['count'] * call['seconds'])}"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.01 else f"{1e3 * seconds:.2g}"


def _time(seconds: float) -> str:
    for unit, length in (("days", SECONDS_PER_DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def gib(count) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:,.1f} GiB"


def size(count) -> str:
    """Bytes in a unit that suits them."""
    if count is None:
        return "-"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count} B"


_ROWS = (
    ("devices", lambda p: str(p["devices"])),
    ("pairs per device", lambda p: str(p["pairs_per_device"])),
    ("memory per device", lambda p: size(p["memory_bytes"])),
    ("state and batch", lambda p: size(p["argument_bytes"])),
    ("temporaries", lambda p: size(p["temporary_bytes"])),
    ("peak", lambda p: ("" if p["exact"] else "about ") + size(p["peak_bytes"])),
    ("fits", lambda p: "yes" if p["fits"] else "NO"),
    ("GFLOP per pair", lambda p: f"{p['flops_per_pair'] / 1e9:,.0f}"),
    ("TFLOP per step", lambda p: f"{p['flops'] * p['devices'] / 1e12:,.1f}"),
    ("ms per step", lambda p: _ms(p["step_seconds"])),
    ("  floor: products at peak", lambda p: _ms(p["matmul_floor_seconds"])),
    ("  floor: bytes at bandwidth", lambda p: _ms(p["memory_floor_seconds"])),
    ("  from", lambda p: p["basis"]),
    ("share of peak", lambda p: f"{p['share_of_peak']:.0%}"),
    ("pairs/s", lambda p: f"{p['pairs_per_second']:,.0f}"),
    ("steps", lambda p: f"{p['steps']:,}"),
    ("days", lambda p: f"{p['days']:,.2f}"),
    ("chip-hours", lambda p: f"{p['chip_hours']:,.0f}"),
    ("compile time", lambda p: "cached" if p["cached"] else f"{p['seconds']:,.0f} s"),
)
