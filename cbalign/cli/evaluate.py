"""Evaluates a run on splits of its data set and prints a table with chance and baselines beside the model.

  cbalign evaluate --workdir=runs/emoji
  cbalign evaluate --workdir=runs/emoji --split=test_vendor --split=test_concept
  cbalign evaluate --workdir=runs/emoji --data=my_imported_folder --split=test
  cbalign evaluate --workdir=runs/coco --config=paper/zero_shot_flickr

A run that aligns images and texts is evaluated by retrieval in both directions: ranked by the contrastive score, by the
matching head over the best of that (ITM), and by the sum of both. Other tasks are evaluated by their accuracy. The result
is written to metrics/ in the workdir.
"""

import sys

from cbalign.cli import process_flags

HELP = "figures of a trained model, beside chance and baselines"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign evaluate`."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run")
    parser.add_argument("--split", action="append", metavar="NAME", help="split to evaluate, may be given several "
                        "times; the config's validation splits by default")
    parser.add_argument("--data", default="", metavar="NAME", help="another data set, or an imported folder")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")
    parser.add_argument("--config", default="", metavar="NAME|FILE", help="evaluate by this config's data set, "
                        "image size, eval and protocol instead of the run's own; --config.KEY=VALUE changes a field")
    process_flags.add_arguments(parser)


def run(args) -> int:
    """Evaluates and prints."""
    with process_flags.joined(args):
        return _evaluate(args)


def _evaluate(args) -> int:
    import jax

    from cbalign.cli.progress import stage_bar
    from cbalign.config import load_config
    from cbalign.errors import UserError
    from cbalign.evaluation.result_table import format_result
    from cbalign.runs.evaluate import evaluate_run
    from cbalign.runs.workdir import open_run

    if args.overrides and not args.config:
        raise UserError(f"--config.{args.overrides[0]} changes a config; name it with --config=NAME")
    settings = load_config(args.config, args.overrides) if args.config else None
    run = open_run(args.workdir)
    for split in args.split or (settings or run.config).eval.splits:
        speaks = jax.process_index() == 0
        with stage_bar(split, active=speaks) as progress:
            result = evaluate_run(run, split, data=args.data, checkpoint=args.checkpoint, settings=settings,
                                  progress=progress)
        if speaks:
            print(format_result(result))
            print(f"written to {result['file']}\n")
    return 0
