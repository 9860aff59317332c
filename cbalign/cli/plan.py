"""Estimates whether a training run fits a TPU slice or a number of GPUs, and what it costs.

The real training step is compiled ahead of time, for hardware you do not have.

  cbalign plan --config=paper/pretrain --topology=v4-8 --topology=v5e:4x4
  cbalign plan --config=paper/pretrain --topology=v4-32 --json=plan.json
  cbalign plan --config=paper/vqa --pairs=1300000 --topology=H200:8

A topology is a Cloud TPU type (v4-32), a mesh of chips (v4:2x2x4) or a number of GPUs (H200:8). For TPUs the TPU
compiler is used, so memory figures are exact; it needs the package libtpu, but no TPU. For GPUs the CPU compiler is
used, which allocates memory differently, so memory figures are estimates.

Time is computed from the FLOPs of the step's matrix products, the chips' peak and an assumed --utilisation.
"""

import dataclasses
import os
import sys

HELP = "estimate memory, communication, time and chip-hours of a run on hardware you do not have"

# COCO 567k, Visual Genome 769k, SBU 860k and CC3M 2.95M pairs (ALBEF, table 1).
_PAPER_DATA, _PAIRS_PER_EPOCH = "coco_karpathy+visual_genome+sbu+cc3m", 5_100_000
_CACHE = "~/.cache/cbalign/plan"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign plan`."""
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="config of the run")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="override a field")
    parser.add_argument(
        "--topology",
        action="append",
        required=True,
        metavar="NAME",
        help="v4-32, v4:2x2x4, v5e:4x4, H200:8 ...; repeatable",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="assumed fraction of the chips' peak reached by matrix products; 0.4 by default",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="records per epoch, for a config that sets epochs; for the paper's pretraining data "
        f"{_PAIRS_PER_EPOCH:,} by default",
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="compile with the same effort as a run: several times slower; memory "
        " changes slightly, FLOPs and communication hardly",
    )
    parser.add_argument(
        "--json",
        default="",
        metavar="FILE",
        help="write all figures as JSON; chip_hours, used by `cbalign tables --plan`, is that of the first topology",
    )
    parser.add_argument(
        "--cache", default=_CACHE, metavar="DIR", help=f"folder for cached results, '' for none; {_CACHE} by default"
    )


def run(args) -> int:
    """Compiles for every topology, prints a table and writes the JSON; returns 1 if a topology is too small."""
    from cbalign.config import load_config
    from cbalign.errors import UserError
    from cbalign.plan.chips import parse_topology
    from cbalign.storage import write_json

    if not 0 < args.utilisation <= 1:
        raise UserError(f"--utilisation={args.utilisation} must be above 0 and at most 1")
    if args.pairs is not None and args.pairs < 1:
        raise UserError(f"--pairs={args.pairs} must be 1 or more")
    config = load_config(args.config, args.overrides)
    args.pairs = args.pairs or _pairs_per_epoch(args.config, config)
    topologies = [parse_topology(text) for text in args.topology]
    if args.json:
        _check_writable(args.json)
    # Set before JAX starts: a plan needs no accelerator and should take none from a run.
    os.environ["JAX_PLATFORMS"] = "cpu"
    plans = [_plan(config, topology, args) for topology in _largest_gpus_first(topologies)]
    plans.sort(key=lambda plan: [str(t) for t in topologies].index(plan["topology"]))
    print("\n".join(_table(plans)))
    print(
        f"assumed: {args.utilisation:.0%} of the peak, {args.pairs:,} records per epoch; excludes evaluations, "
        "restarts and waiting for data"
    )
    if args.json:
        content = {
            "config": args.config,
            "overrides": args.overrides,
            "utilisation": args.utilisation,
            "pairs_per_epoch": args.pairs,
            "chip_hours": plans[0]["chip_hours"],
            "topologies": plans,
        }
        write_json(args.json, content)
        print(f"written to {args.json}")
    return 0 if all(plan["fits"] for plan in plans) else 1


def _pairs_per_epoch(name: str, config) -> int:
    """Records per epoch of the config's data, if known or irrelevant; raises UserError otherwise."""
    from cbalign.errors import UserError

    if not config.train.steps and config.data.name != _PAPER_DATA:
        raise UserError(f"{name} sets epochs of {config.data.name}; give the records in one with --pairs=N")
    return _PAIRS_PER_EPOCH


def _check_writable(path: str) -> None:
    from cbalign.errors import UserError

    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UserError(f"--json={path}: no folder {folder}, or it is not writable")


def _largest_gpus_first(topologies):
    """Sorts topologies: the CPU backend fixes its number of devices once, so the largest number of GPUs goes first."""
    return sorted(topologies, key=lambda topology: -topology.devices if not topology.chip.is_tpu else 0)


def _plan(config, topology, args) -> dict:
    from cbalign.plan import ahead
    from cbalign.plan.cost import cost

    print(f"compiling for {topology} ...", file=sys.stderr, flush=True)
    cache = os.path.expanduser(args.cache) if args.cache else ""
    compiled, cached = ahead.compile_step(config, topology, cache=cache, thorough=args.thorough)
    priced = cost(config, topology, compiled, utilisation=args.utilisation, pairs_per_epoch=args.pairs)
    found = dataclasses.asdict(compiled)
    # The CPU compiler accepts any size, so the peak is also compared with the chip's memory.
    fits = found.pop("fits") and compiled.peak_bytes <= topology.memory_bytes
    return {
        "topology": str(topology),
        "chips": topology.chips,
        "devices": topology.devices,
        "exact": topology.chip.is_tpu,
        "pairs_per_device": config.train.batch_size // topology.devices,
        "fits": fits,
        "memory_bytes": topology.memory_bytes,
        **found,
        "cached": cached,
        **dataclasses.asdict(priced),
    }


def _table(plans) -> list[str]:
    """One column per topology, followed by the collectives of each."""
    rows = [("", [plan["topology"] for plan in plans])]
    for label, show in _ROWS:
        rows.append((label, [show(plan) for plan in plans]))
    width = max(len(cell) for _, cells in rows for cell in cells) + 2
    lines = [f"{label:<30}" + "".join(f"{cell:>{width}}" for cell in cells) for label, cells in rows]
    for plan in plans:
        lines.append(
            f"{plan['topology']}, collectives per device and step:"
            if plan["collectives"]
            else f"{plan['topology']}: no collectives (one device, or the step does not fit)"
        )
        lines += [
            f"  {c['count']:>4} x {c['kind']:<20}{_bytes(c['bytes']):>12}   among {c['devices']}"
            for c in plan["collectives"][:_MOST]
        ]
        rest = plan["collectives"][_MOST:]
        if rest:
            lines.append(
                f"  {sum(c['count'] for c in rest):>4} smaller collectives, "
                f"{_bytes(sum(c['count'] * c['bytes'] for c in rest))} in total"
            )
    return lines


_MOST = 8


def _bytes(count) -> str:
    if count is None:
        return "-"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


_ROWS = (
    ("devices", lambda p: str(p["devices"])),
    ("pairs per device", lambda p: str(p["pairs_per_device"])),
    ("memory per device", lambda p: _bytes(p["memory_bytes"])),
    ("state and batch", lambda p: _bytes(p["argument_bytes"])),
    ("temporaries", lambda p: _bytes(p["temporary_bytes"])),
    ("peak", lambda p: ("" if p["exact"] else "about ") + _bytes(p["peak_bytes"])),
    ("fits", lambda p: "yes" if p["fits"] else "NO"),
    ("GFLOP per pair", lambda p: f"{p['flops_per_pair'] / 1e9:,.0f}"),
    ("TFLOP per step", lambda p: f"{p['flops'] * p['devices'] / 1e12:,.1f}"),
    ("ms per step", lambda p: f"{1e3 * p['step_seconds']:,.0f}"),
    ("pairs/s", lambda p: f"{p['pairs_per_second']:,.0f}"),
    ("steps", lambda p: f"{p['steps']:,}"),
    ("days", lambda p: f"{p['days']:,.2f}"),
    ("chip-hours", lambda p: f"{p['chip_hours']:,.0f}"),
    ("compile time", lambda p: "cached" if p["cached"] else f"{p['seconds']:,.0f} s"),
)
