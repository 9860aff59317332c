"""What a run, or a whole suite of them, needs on hardware you do not have: memory, days and chip-hours.

The real training step is compiled ahead of time.

  cbalign plan --config=paper/pretrain --topology=v4-8 --topology=v5e:4x4
  cbalign plan --config=paper/retrieval_coco --topology=v4-32 --evaluate=test --json=plan.json
  cbalign plan --suite=paper --topology=v4-32

A topology is a Cloud TPU type (v4-32), a mesh of chips (v4:2x2x4) or a number of GPUs (H200:8). For TPUs the TPU
compiler is used, which needs the package libtpu, but no TPU: memory is exact, and time is the sum of the compiler's own
estimates. For GPUs the CPU compiler is used, which allocates memory differently, so memory is an estimate, and time is
that of the matrix products at an assumed --utilisation of the peak. No time is below that of the products at the peak
and of the bytes at the memory's bandwidth. Waiting for data, restarts and the host's own work are not included.

Compiling a full-size step takes minutes; results are cached.
"""

import os
import sys

HELP = "estimate memory, time and chip-hours of a run, or of a suite, on hardware you do not have"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign plan`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="NAME|FILE", help="config of the run")
    what.add_argument("--suite", metavar="NAME", help="plan every row of a suite: paper")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="override a field")
    parser.add_argument(
        "--topology",
        action="append",
        required=True,
        metavar="NAME",
        help="v4-32, v4:2x2x4, v5e:4x4, H200:8 ...; repeatable",
    )
    parser.add_argument(
        "--evaluate",
        action="append",
        default=[],
        metavar="SPLIT|RECORDS,TEXTS",
        help="with --config: plan an evaluation of that split of its data as well; numbers for data of your own",
    )
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="with --suite: these rows only")
    parser.add_argument(
        "--every-program",
        action="store_true",
        help="with --suite: compile the step of every row; by default rows that differ in losses alone share one",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        metavar="SHARE",
        help="assumed share of the chips' peak that matrix products reach, in place of the compiler's estimate; 0.4 "
        "where there is none",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="samples per epoch, for a config that sets epochs; known for the paper's data sets",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compile with the lowest effort: several times faster, memory within a few percent, but no estimate of "
        "time",
    )
    parser.add_argument(
        "--json",
        default="",
        metavar="FILE",
        help="write all figures as JSON, which `cbalign tables --plan` reads; it takes those of the first topology",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder for cached results, '' for none; by default cbalign/plan among the user's cache files",
    )


def run(args) -> int:
    """Compiles for every topology, prints tables and writes the JSON; returns 1 if something does not fit."""
    from cbalign.errors import UserError
    from cbalign.plan.chips import parse_topology
    from cbalign.storage import write_json

    if args.utilisation is not None and not 0 < args.utilisation <= 1:
        raise UserError(f"--utilisation={args.utilisation} must be above 0 and at most 1")
    if args.pairs is not None and args.pairs < 1:
        raise UserError(f"--pairs={args.pairs} must be 1 or more")
    topologies = [parse_topology(text) for text in args.topology]
    if args.json:
        _check_writable(args.json)
    # Set before JAX starts: a plan needs no accelerator and should take none from a run.
    os.environ["JAX_PLATFORMS"] = "cpu"
    content = _plan_suite(args, topologies) if args.suite else _plan_config(args, topologies)
    if args.json:
        write_json(args.json, content)
        print(f"written to {args.json}")
    return 0 if content["fits"] else 1


def _check_writable(path: str) -> None:
    from cbalign.errors import UserError

    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UserError(f"--json={path}: no folder {folder}, or it is not writable")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _each_topology(topologies, plan) -> list:
    """[(topology, plan(topology))] in the order given.

    The most GPUs are planned first, as the CPU backend fixes its number of devices once.
    """
    first = sorted(topologies, key=lambda topology: -topology.devices if not topology.chip.is_tpu else 0)
    found = {str(topology): plan(topology) for topology in first}
    return [(topology, found[str(topology)]) for topology in topologies]


def _compiler(args, topology):
    from cbalign.plan.ahead import Compiler
    from cbalign.storage import user_cache

    cache = args.cache
    if cache is None:
        try:
            cache = os.fspath(user_cache() / "plan")
        except RuntimeError:  # there is no home folder
            cache = ""
    return Compiler(topology, cache=os.path.expanduser(cache), quick=args.quick, say=_say)


def _plan_config(args, topologies) -> dict:
    from cbalign.config import load_config
    from cbalign.plan import show
    from cbalign.plan.data_sizes import need_samples
    from cbalign.plan.run_plan import plan_evaluation, plan_training

    config = load_config(args.config, args.overrides)
    samples = args.pairs or need_samples(config, args.config)
    wanted = [_size(text, config) for text in args.evaluate]

    def plan(topology):
        compiler = _compiler(args, topology)
        training = plan_training(config, compiler, samples=samples, utilisation=args.utilisation)
        evaluations = [
            plan_evaluation(config, compiler, size, name=name, utilisation=args.utilisation) for name, size in wanted
        ]
        return training, [one for one in evaluations if one]

    plans = [show.as_json(config, topology, *found) for topology, found in _each_topology(topologies, plan)]
    print("\n".join(show.config_table(plans)))
    print(f"{samples:,} samples per epoch; " if samples else "", end="")
    print("evaluations during training, restarts and waiting for data are not included")
    return {
        "config": args.config,
        "overrides": args.overrides,
        "utilisation": args.utilisation,
        "pairs_per_epoch": samples,
        "chip_hours": plans[0]["chip_hours"],
        "fits": all(plan["fits"] for plan in plans),
        "topologies": plans,
    }


def _size(text: str, config):
    """(name, size) of what --evaluate names."""
    from cbalign.errors import UserError
    from cbalign.evaluation.calls import SplitSize
    from cbalign.plan.data_sizes import split_size

    numbers = text.split(",")
    if all(number.isdigit() and int(number) for number in numbers) and len(numbers) <= 2:
        return "data of your own", SplitSize(int(numbers[0]), int(numbers[-1]))
    size = split_size(config.data.name, text)
    if size is None:
        raise UserError(
            f"--evaluate={text}: the size of that split of {config.data.name} is not known; give it as RECORDS,TEXTS"
        )
    return f"{config.data.name} {text}", size


def _plan_suite(args, topologies) -> dict:
    from cbalign.errors import UserError
    from cbalign.experiments.suite_plan import plan_suite
    from cbalign.experiments.suites import get_suite
    from cbalign.plan import show

    suite = get_suite(args.suite)
    if suite.search:
        raise UserError(
            f"--suite={args.suite} is for one machine, and its rows search their learning rates; plan a row"
        )
    if args.overrides or args.evaluate or args.pairs:
        raise UserError("--suite takes its rows as they are: no --config.KEY, --evaluate or --pairs")
    rows = tuple(suite.row(name) for name in args.only) or suite.rows

    def plan(topology):
        return plan_suite(
            suite,
            _compiler(args, topology),
            rows=rows,
            every_program=args.every_program,
            utilisation=args.utilisation,
            say=_say,
        )

    plans = [show.suite_json(topology, found) for topology, found in _each_topology(topologies, plan)]
    for one in plans:
        print("\n".join(show.suite_table(one)), end="\n\n")
    return {
        "suite": args.suite,
        "utilisation": args.utilisation,
        "rows": [{name: row[name] for name in ("row", "config", "chip_hours")} for row in plans[0]["rows"]],
        "fits": all(row["fits"] for one in plans for row in one["rows"]),
        "topologies": plans,
    }
