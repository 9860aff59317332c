"""Writes an HTML page about a run: results beside chance and baselines, curves, examples, attention, the codebook.

  cbalign report --workdir=runs/emoji
  cbalign report --compare runs/emoji runs/emoji_long

Writes report.html, a single self-contained file, report/losses.png and, for retrieval, report/gallery.png into the
workdir. It works for every task, and for runs that are still in progress or have not been evaluated. With --compare it
writes one page about several runs instead: settings that differ, figures side by side, curves overlaid.
"""

import argparse

HELP = "write an HTML page with a run's results, curves, examples and codes, or compare runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign report`."""
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument("--workdir", metavar="DIR", help="folder of the run")
    shown.add_argument(
        "--compare", nargs="+", metavar="DIR", help="folders of two or more runs; differences are to the first"
    )
    parser.add_argument(
        "--out", default="", metavar="FILE", help="page of --compare (default: compare.html in the first run's folder)"
    )
    parser.add_argument(
        "--split",
        default="",
        metavar="NAME",
        help="split from which examples are drawn (default: the evaluated test split of most images, else the config's "
        "first validation split)",
    )
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="checkpoint for the examples (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random examples (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from cbalign.errors import UserError

    if args.seed < 0:
        raise UserError(f"--seed={args.seed} must be 0 or more")
    if args.compare and (args.split or args.checkpoint != "best"):
        raise UserError("--compare draws no examples; leave out --split and --checkpoint")
    if args.out and not args.compare:
        raise UserError("--out is the page of --compare; a run's own report is written to its folder")
    from cbalign.report.compare import write_comparison
    from cbalign.report.page import write_report
    from cbalign.runs.workdir import open_run

    runs = [open_run(folder) for folder in args.compare or [args.workdir]]
    if exported := [run.name for run in runs if run.exported]:
        raise UserError(f"{exported[0]} holds exported weights; a report is about the folder of a run")
    if args.compare:
        print(write_comparison(runs, args.out or None))
    else:
        print(write_report(runs[0], split=args.split, checkpoint=args.checkpoint, seed=args.seed))
    return 0
