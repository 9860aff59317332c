"""Tables of a suite: our figures beside the literature's, where each comes from, and what is still to be run.

  cbalign tables --suite=paper --runs=runs/paper
  cbalign tables --suite=paper --runs=runs/paper --result=vqa.test-dev=73.2
  cbalign tables --suite=emoji --runs=runs/suite_emoji --out=tables

Prints Markdown and writes SUITE.md, SUITE.csv and SUITE.html to --out. Runs may be missing, partial or failed: the
tables list the commands that make what is missing and, with --plan, their estimated chip-hours.
"""

HELP = "tables of a suite of runs, beside the literature's figures"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign tables`."""
    add_suite_arguments(parser)
    parser.add_argument("--out", default="", metavar="DIR", help="folder of the tables; tables/ in --runs by default")
    parser.add_argument(
        "--plan",
        action="append",
        default=[],
        metavar="FILE",
        help="what `cbalign plan --json` wrote for a config, for the chip-hours; may be given several times",
    )
    parser.add_argument(
        "--result",
        action="append",
        default=[],
        metavar="ROW.SPLIT=FIGURE",
        help="a figure in %% that an "
        "evaluation server returned, as vqa.test-dev=73.2; kept in --runs; without a figure it is removed",
    )


def add_suite_arguments(parser) -> None:
    """Adds --suite and --runs."""
    parser.add_argument("--suite", required=True, metavar="NAME", help="paper, scenes or emoji")
    parser.add_argument(
        "--runs", default="", metavar="DIR", help="folder of the suite's runs; runs/suite_NAME by default"
    )


def runs_folder(args):
    """The folder of a suite's runs."""
    from etils import epath

    return epath.Path(args.runs or f"runs/suite_{args.suite}")


def run(args) -> int:
    """Collects, prints and writes."""
    from cbalign.experiments.gather import gather, read_chip_hours
    from cbalign.experiments.server_figures import enter_figures
    from cbalign.experiments.settings import make_settings
    from cbalign.experiments.suites import get_suite
    from cbalign.experiments.tables import markdown, write_tables

    suite, runs = get_suite(args.suite), runs_folder(args)
    settings, chip_hours = make_settings(suite, runs), read_chip_hours(args.plan)
    enter_figures(suite, runs, args.result)
    tables = gather(suite, runs, settings=settings, chip_hours=chip_hours)
    print(markdown(suite.name, tables))
    files = write_tables(suite.name, tables, args.out or runs / "tables")
    print("written to " + ", ".join(str(file) for file in files.values()))
    return 0
