"""Evaluates a run on splits of its data set and prints its figures with chance levels and baselines.

  cbalign evaluate --workdir=runs/emoji
  cbalign evaluate --workdir=runs/emoji --split=test_vendor --split=test_concept
  cbalign evaluate --workdir=runs/emoji --data=my_imported_folder --split=test
  cbalign evaluate --workdir=runs/coco --config=paper/zero_shot_flickr
  cbalign evaluate --weights=weights/emoji --data=my_imported_folder --split=test --out=results

Pretraining and retrieval runs are evaluated by retrieval in both directions, ranked by the contrastive score, by the
matching head after re-ranking the best candidates (ITM), and by the sum of both. Other tasks report accuracy. Results
are written to metrics/ in the workdir.
"""

from cbalign.cli import model_flags, process_flags

HELP = "evaluate a trained model against chance and baselines"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign evaluate`."""
    model_flags.add_arguments(parser)
    parser.add_argument("--out", default="", metavar="DIR", help="folder to write metrics/ in; the workdir by default")
    parser.add_argument(
        "--split",
        action="append",
        metavar="NAME",
        help="split to evaluate, repeatable; by default the config's eval.splits",
    )
    parser.add_argument("--data", default="", metavar="NAME", help="evaluate on another data set or imported folder")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="checkpoint to evaluate; best by default"
    )
    parser.add_argument(
        "--config",
        default="",
        metavar="NAME|FILE",
        help="use the data set, image size, eval and "
        "protocol of this config instead of the run's own; --config.KEY=VALUE overrides a field",
    )
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
        raise UserError(f"--config.{args.overrides[0]} overrides a field of a config; add --config=NAME")
    settings = load_config(args.config, args.overrides) if args.config else None
    run = open_run(args.workdir)
    for split in args.split or (settings or run.config).eval.splits:
        speaks = jax.process_index() == 0
        with stage_bar(split, active=speaks) as progress:
            result = evaluate_run(
                run,
                split,
                data=args.data,
                checkpoint=args.checkpoint,
                settings=settings,
                out=args.out,
                progress=progress,
            )
        if speaks:
            print(format_result(result))
            where = f"written to {result['file']}" if result["file"] else "not written; --out=DIR keeps it"
            print(f"{where}\n")
    return 0
