"""Writes an HTML page about a run: results beside chance and baselines, curves, and examples of retrieval.

  cbalign report --workdir=runs/emoji

Writes report.html, a single self-contained file, report/losses.png and, for retrieval, report/gallery.png into the
workdir. It works for every task, and for runs that are still in progress or have not been evaluated.
"""

import argparse

HELP = "write an HTML page with a run's results, curves and examples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign report`."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--split",
        default="",
        metavar="NAME",
        help="split from which examples are drawn (default: the first test split evaluated, else the config's first "
        "validation split)",
    )
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="checkpoint for the examples (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random examples (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from cbalign.errors import UserError
    from cbalign.report.page import write_report
    from cbalign.runs.workdir import open_run

    if args.seed < 0:
        raise UserError(f"--seed={args.seed} must be 0 or more")
    print(write_report(open_run(args.workdir), split=args.split, checkpoint=args.checkpoint, seed=args.seed))
    return 0
