"""Tables of a suite: our figures beside the literature's, where each comes from, and what is still to be run.

  cbalign tables --suite=paper --runs=runs/paper
  cbalign tables --suite=emoji --runs=runs/suite_emoji --out=tables

Prints Markdown and writes SUITE.md, SUITE.csv and SUITE.html into --out. Runs may be missing, partial or failed; a row
that lacks some has the command that makes them and, where `cbalign plan --json` was asked, its estimated chip-hours.
"""

HELP = "tables of a suite of runs, beside the literature's figures"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign tables`."""
    add_suite_arguments(parser)
    parser.add_argument("--out", default="", metavar="DIR", help="folder of the tables; tables/ in --runs by default")
    parser.add_argument("--plan", action="append", default=[], metavar="FILE", help="what `cbalign plan` wrote of a "
                        "config, for the chip-hours; may be given several times")


def add_suite_arguments(parser) -> None:
    """Adds --suite and --runs."""
    parser.add_argument("--suite", required=True, metavar="NAME", help="paper, scenes or emoji")
    parser.add_argument("--runs", default="", metavar="DIR", help="folder of the suite's runs; runs/suite_NAME by default")


def settings_of(suite, runs, args):
    """The settings that were asked for; what was not is as the runs in the folder have it, else the suite's.

    Raises:
      UserError: a number or a rate that makes no sense.
    """
    from cbalign.experiments.trials import make_settings

    asked = {name: getattr(args, name, None) for name in ("seeds", "tuning_seeds", "steps", "rates")}
    return make_settings(suite, runs, overrides=getattr(args, "overrides", ()), **asked)


def run(args) -> int:
    """Gathers, prints and writes."""
    from cbalign.experiments.tables import markdown, write_tables
    from cbalign.experiments.suites import get_suite
    from cbalign.experiments.gather import gather, read_chip_hours
    from cbalign.experiments.small import SmallSuite

    suite, runs = get_suite(args.suite), args.runs or f"runs/suite_{args.suite}"
    settings = settings_of(suite, runs, args) if isinstance(suite, SmallSuite) else None
    tables = gather(suite, runs, settings=settings, chip_hours=read_chip_hours(args.plan))
    print(markdown(suite.name, tables))
    files = write_tables(suite.name, tables, args.out or f"{runs}/tables")
    print("written to " + ", ".join(str(file) for file in files.values()))
    return 0
