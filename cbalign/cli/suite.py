"""Runs what a suite of runs is missing; started again, it resumes where it stopped.

  cbalign suite --suite=emoji --runs=runs/suite_emoji --dry-run
  cbalign suite --suite=emoji --runs=runs/suite_emoji --only=soft_intra --only=codebook --seeds=5 --steps=500
  cbalign suite --suite=paper --runs=runs/paper --dry-run

The small suites, scenes, emoji and icons, try every row at each rate of --rates with --tuning-seeds seeds, choose the
rate by recall on validation, and train and test --seeds seeds at that rate; all runs have the same --steps, or see as
many pairs where their batches differ. --config.KEY=VALUE changes a field in all rows. All runs in a folder share these
settings; only --seeds may change. A run whose loss is not finite counts as failed and is not repeated.

The suite paper trains the full-size models on this machine's devices; launch/paper.sh does the same on a TPU pod. With
--config.rehearse=True it runs miniatures of them, and further fields can be changed; see launch/paper.sh --rehearse.
Several processes may work in one folder, each on rows of its own. `cbalign tables` shows the results.
"""

HELP = "run what a suite of runs is missing"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign suite`."""
    from cbalign.cli.tables import add_suite_arguments

    add_suite_arguments(parser)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ROW",
        help="a row, with the rows it starts from; may be given several times; all rows by default",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument(
        "--next",
        action="store_true",
        help="print the arguments of the next command, one a line, or "
        "nothing where nothing is missing (suite paper; for scripts)",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each row; 5 by default")
    parser.add_argument("--tuning-seeds", type=int, metavar="N", help="seeds that choose the rate; 1 by default")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of each run; by default the suite's")
    parser.add_argument("--rates", metavar="A,B,...", help="learning rates to choose from; by default the suite's")
    parser.add_argument(
        "--weights",
        default="",
        metavar="DIR,DIR",
        help="what the pretrainings of the suite paper start "
        "from: folders of cbalign convert, as of DeiT and BERT; from scratch by default",
    )
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="changes a field in all rows")
    parser.set_defaults(config="")


def run(args) -> int:
    """Runs a suite; returns 0, or the exit code of the command that failed or was interrupted."""
    from cbalign.__main__ import main
    from cbalign.cli.tables import runs_folder
    from cbalign.errors import UserError
    from cbalign.experiments import engine
    from cbalign.experiments.settings import make_settings
    from cbalign.experiments.suites import get_suite

    suite, runs = get_suite(args.suite), runs_folder(args)
    if suite.search and args.weights:
        raise UserError(f"--weights is for the suite paper; use --config.init.weights={args.weights}")
    if suite.search and args.next:
        raise UserError(f"--next is for the suite paper; start {suite.name} with cbalign suite --suite={suite.name}")
    rehearsal = tuple(args.overrides) if suite.search is None and "rehearse=True" in args.overrides else ()
    settings = make_settings(
        suite,
        runs,
        seeds=args.seeds,
        tuning_seeds=args.tuning_seeds,
        steps=args.steps,
        rates=args.rates,
        overrides=() if rehearsal else args.overrides,
    )
    job = engine.Job(suite, runs, settings, tuple(args.only), args.weights, rehearsal)
    engine.check(job)
    if args.next or args.dry_run:
        _show(job, engine, only_next=args.next)
        return 0
    if code := engine.run_suite(job, main, say=lambda line: print(line, flush=True)):
        return code
    if engine.outstanding(job):
        print(f"some rows are not done yet; see them with: cbalign suite --suite={suite.name} --runs={runs} --dry-run")
    else:
        print(f"all rows are done; see them with: cbalign tables --suite={suite.name} --runs={runs}")
    return 0


def _show(job, engine, *, only_next: bool) -> None:
    """Prints what is missing: commands, or the runs of a suite whose commands depend on the data set."""
    left = engine.outstanding(job)
    if only_next:
        for argument in engine.command(job, left[0]) if left else ():
            print(argument)
    elif job.suite.search is None:
        for step in left:
            print(engine.typed(engine.command(job, step)))
    else:
        trials = dict.fromkeys(step.trial for step in left)
        for trial in trials:
            print(
                f"{trial.row.name}  rate {trial.rate:g}  seed {trial.seed}"
                f"{'  (chooses the rate)' if trial.chooses else ''}"
            )
        most = "up to " if any(row.steps_share < 1 for row in job.suite.rows) else ""  # fewer of larger batches
        print(
            f"{len(trials)} runs of {most}{job.settings.steps} steps are missing as far as known; those at a chosen "
            "rate are added once it is chosen"
        )
