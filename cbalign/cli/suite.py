"""Runs what a suite of runs lacks, one after the other; started again it goes on where it stopped.

  cbalign suite --suite=emoji --runs=runs/suite_emoji --dry-run
  cbalign suite --suite=emoji --runs=runs/suite_emoji --only=soft_intra --only=codebook --seeds=5 --steps=500
  cbalign suite --suite=paper --runs=runs/paper --dry-run

The small suites, scenes and emoji, try every row at each rate of --rates with --tuning-seeds seeds, choose the rate by
recall on validation, and train and test --seeds seeds at that rate; all runs have the same --steps. --config.KEY=VALUE
changes a field in all rows. One folder of runs has one set of these; only the seeds may grow. A run whose loss is not
finite counts as failed and is not tried again. Several processes may work in one folder, each at a row of its own.

The suite paper trains the full-size models here, on this machine's devices; launch/paper.sh does the same through a TPU
pod. `cbalign tables` shows what came of it.
"""

HELP = "run what a suite of runs lacks"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign suite`."""
    from cbalign.cli.tables import add_suite_arguments

    add_suite_arguments(parser)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="a row, with what it starts from; "
                        "may be given several times; all rows by default")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and run nothing")
    parser.add_argument("--next", action="store_true", help="print the arguments of the next command to be run, one a "
                        "line, and nothing where all is done (suite paper; for scripts)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each row; 5 by default")
    parser.add_argument("--tuning-seeds", type=int, metavar="N", help="seeds that choose the rate; 1 by default")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of each run; by default the suite's")
    parser.add_argument("--rates", metavar="A,B,...", help="learning rates to choose from; by default the suite's")
    parser.add_argument("--weights", default="", metavar="DIR,DIR", help="what the pretrainings of the suite paper start "
                        "from: folders that cbalign convert wrote, as of DeiT and BERT; by default they start from scratch")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="changes a field in all rows")
    parser.set_defaults(config="")


def run(args) -> int:
    """Runs a suite; returns 0, or the code of an interrupted `cbalign train`."""
    from cbalign.errors import UserError
    from cbalign.experiments.suites import get_suite
    from cbalign.experiments.small import SmallSuite

    suite, runs = get_suite(args.suite), args.runs or f"runs/suite_{args.suite}"
    if isinstance(suite, SmallSuite):
        if args.weights:
            raise UserError(f"--weights is for the suite paper; use --config.init.weights={args.weights}")
        if args.next:
            raise UserError(f"--next is for the suite paper; start {suite.name} with cbalign suite --suite={suite.name}")
        return _run_small(suite, runs, args)
    given = [name for name in ("seeds", "tuning_seeds", "steps", "rates") if getattr(args, name) is not None]
    if given or args.overrides:
        name = f"--{given[0].replace('_', '-')}" if given else f"--config.{args.overrides[0].partition('=')[0]}"
        raise UserError(f"{name} is not for the suite {suite.name}: its runs are those of its config files")
    return _run_single(suite, runs, args)


def _run_small(suite, runs, args) -> int:
    from cbalign.cli.tables import settings_of
    from cbalign.experiments.trial_queue import outstanding, run_suite

    settings = settings_of(suite, runs, args)
    if args.dry_run:
        left = outstanding(suite, settings, runs, only=args.only)
        for trial, final in left:
            print(f"{trial.row.name}  rate {trial.rate:g}  seed {trial.seed}{'' if final else '  (chooses the rate)'}")
        print(f"{len(left)} runs of {settings.steps} steps are known to be left; those at a chosen rate follow its choice")
        return 0
    from cbalign.distributed.processes import exit_code

    if signal := run_suite(suite, settings, runs, only=args.only):
        return exit_code(signal)
    if left := outstanding(suite, settings, runs, only=args.only):
        print(f"{len(left)} runs are left to the other processes at work in {runs}")
        return 0
    print(f"all rows are done; see them with: cbalign tables --suite={suite.name} --runs={runs}")
    return 0


def _run_single(suite, runs, args) -> int:
    from cbalign.__main__ import main
    from cbalign.experiments import steps

    left = [step for step in steps.plan(suite, runs, only=args.only, weights=args.weights) if not step.done]
    if args.next:
        for argument in left[0].arguments if left else ():
            print(argument)
        return 0
    for step in left:
        print(step.command, flush=True)
        if not args.dry_run and (code := main(list(step.arguments))):
            return code
    return 0
