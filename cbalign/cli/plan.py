"""Estimates whether a training run fits a TPU slice or a set of GPUs, and what it costs, before anyone pays: the real
training step is compiled ahead of time, for hardware you do not have.

  cbalign plan --config=paper/pretrain --topology=v4-8 --topology=v5e:4x4
  cbalign plan --config=paper/pretrain --topology=v4-32 --json=plan.json
  cbalign plan --config=paper/vqa --pairs=1300000 --topology=H200:8

A topology is a Cloud TPU type (v4-32), a mesh of chips (v4:2x2x4) or a number of GPUs (H200:8). For TPUs the step goes
through the TPU compiler, so its memory figures are exact; that needs the package libtpu, not a TPU. For GPUs the step is
compiled by the CPU's compiler, which allocates memory differently: take those bytes as an estimate.

Time is computed from the FLOPs of the step's matrix products, the chip's peak and an assumed utilisation (--utilisation).
"""

import dataclasses
import os
import sys

HELP = "memory, communication, time and chip-hours of a training run, on hardware you do not have"

# COCO 567k, Visual Genome 769k, SBU 860k and CC3M 2.95M pairs (ALBEF, table 1).
_PAPER_DATA, _PAIRS_PER_EPOCH = "coco_karpathy+visual_genome+sbu+cc3m", 5_100_000
_CACHE = "~/.cache/cbalign/plan"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign plan`."""
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="config of the run")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="overrides a field")
    parser.add_argument("--topology", action="append", required=True, metavar="NAME",
                        help="v4-32, v4:2x2x4, v5e:4x4, H200:8 ...; may be given several times")
    parser.add_argument("--utilisation", type=float, default=0.4, metavar="SHARE",
                        help="of the chips' peak that the matrix products reach; 0.4 by default")
    parser.add_argument("--pairs", type=int, metavar="N",
                        help="records in an epoch, where the config counts in epochs; by default, for the data of the "
                        f"paper's pretraining, {_PAIRS_PER_EPOCH:,}")
    parser.add_argument("--thorough", action="store_true", help="compile with the effort a run uses: several times slower; "
                        "memory differs a little, FLOPs and communication hardly")
    parser.add_argument("--json", default="", metavar="FILE",
                        help="writes everything there; its chip_hours, for `cbalign tables --plan`, are of the first topology")
    parser.add_argument("--cache", default=_CACHE, metavar="DIR",
                        help=f"keeps compilations there, '' for none; {_CACHE} by default")


def run(args) -> int:
    """Compiles for every topology, prints a table and writes the JSON; 1 where a topology is too small."""
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
    print(f"assumed: {args.utilisation:.0%} of the peak, {args.pairs:,} records an epoch; evaluations, restarts and "
          "waiting for data are not included")
    if args.json:
        content = {"config": args.config, "overrides": args.overrides, "utilisation": args.utilisation,
                   "pairs_per_epoch": args.pairs, "chip_hours": plans[0]["chip_hours"], "topologies": plans}
        write_json(args.json, content)
        print(f"written to {args.json}")
    return 0 if all(plan["fits"] for plan in plans) else 1


def _pairs_per_epoch(name: str, config) -> int:
    """Records in an epoch of the config's data, where it is known or does not matter."""
    from cbalign.errors import UserError

    if not config.train.steps and config.data.name != _PAPER_DATA:
        raise UserError(f"{name} counts in epochs of {config.data.name}; give the records in one with --pairs=N")
    return _PAIRS_PER_EPOCH


def _check_writable(path: str) -> None:
    from cbalign.errors import UserError

    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UserError(f"--json={path}: no folder {folder} that can be written to")


def _largest_gpus_first(topologies):
    """The CPU backend gets its number of devices once, so the largest number of GPUs it stands in for goes first."""
    return sorted(topologies, key=lambda topology: -topology.devices if not topology.chip.is_tpu else 0)


def _plan(config, topology, args) -> dict:
    from cbalign.plan import ahead
    from cbalign.plan.cost import cost

    print(f"compiling for {topology} ...", file=sys.stderr, flush=True)
    cache = os.path.expanduser(args.cache) if args.cache else ""
    compiled, cached = ahead.compile_step(config, topology, cache=cache, thorough=args.thorough)
    priced = cost(config, topology, compiled, utilisation=args.utilisation, pairs_per_epoch=args.pairs)
    found = dataclasses.asdict(compiled)
    # The CPU's compiler accepts any size; whether the step fits the chip follows from the chip's memory.
    fits = found.pop("fits") and compiled.peak_bytes <= topology.memory_bytes
    return {
        "topology": str(topology), "chips": topology.chips, "devices": topology.devices,
        "exact": topology.chip.is_tpu, "pairs_per_device": config.train.batch_size // topology.devices, "fits": fits,
        "memory_bytes": topology.memory_bytes, **found, "cached": cached, **dataclasses.asdict(priced),
    }


def _table(plans) -> list[str]:
    """A column for each topology, then the collectives of its devices."""
    rows = [("", [plan["topology"] for plan in plans])]
    for label, show in _ROWS:
        rows.append((label, [show(plan) for plan in plans]))
    width = max(len(cell) for _, cells in rows for cell in cells) + 2
    lines = [f"{label:<30}" + "".join(f"{cell:>{width}}" for cell in cells) for label, cells in rows]
    for plan in plans:
        lines.append(f"{plan['topology']}, collectives of each device in a step:" if plan["collectives"] else
                     f"{plan['topology']}: one device, or its collectives are unknown")
        lines += [f"  {c['count']:>4} x {c['kind']:<20}{_bytes(c['bytes']):>12}   among {c['devices']}"
                  for c in plan["collectives"][:_MOST]]
        rest = plan["collectives"][_MOST:]
        if rest:
            lines.append(f"  {sum(c['count'] for c in rest):>4} smaller ones, "
                         f"{_bytes(sum(c['count'] * c['bytes'] for c in rest))} in all")
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
    ("memory of a device", lambda p: _bytes(p["memory_bytes"])),
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
    ("compiled in", lambda p: "before (cached)" if p["cached"] else f"{p['seconds']:,.0f} s"),
)
