"""Writes a page on a run: results beside chance and baselines, curves, the codebook's health, examples of retrieval.

  cbalign report --workdir=runs/emoji

Makes report.html, which needs nothing beside it, and report/losses.png and report/gallery.png in the workdir. A run
that is still in progress, or was never evaluated, gets the part of the page that it has come to.
"""

HELP = "an HTML page of results, curves and examples of a run"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign report`."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run")
    parser.add_argument("--split", default="", metavar="NAME", help="split of the examples; by default the first test "
                        "split that was evaluated, else the config's first validation split")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of examples; 0 by default")


def run(args) -> int:
    """Writes the page and prints its path."""
    from cbalign.runs.workdir import open_run
    from cbalign.errors import UserError
    from cbalign.report.page import write_report

    if args.seed < 0:
        raise UserError(f"--seed={args.seed} must be 0 or more")
    print(write_report(open_run(args.workdir), split=args.split, checkpoint=args.checkpoint, seed=args.seed))
    return 0
