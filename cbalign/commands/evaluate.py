"""Evaluates retrieval in both directions and prints a table with chance and plain baselines beside the model.

  cbalign evaluate --workdir=runs/emoji
  cbalign evaluate --workdir=runs/emoji --split=test_vendor --split=test_concept
  cbalign evaluate --workdir=runs/emoji --data=my_imported_folder --split=test

Pictures and texts are ranked by the contrastive score, by the matching head over the best of that (ITM), and by the
sum of both. The result is written to metrics/retrieval_DATA_SPLIT.json in the workdir.
"""

import sys

HELP = "retrieval figures of a trained model, beside chance and baselines"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign evaluate`."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run")
    parser.add_argument("--split", action="append", metavar="NAME", help="split to evaluate, may be given several "
                        "times; the config's validation splits by default")
    parser.add_argument("--data", default="", metavar="NAME", help="another data set, or an imported folder")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Evaluates and prints."""
    from tqdm import tqdm

    from cbalign import runs
    from cbalign.evaluation.table import format_table

    opened = runs.open_run(args.workdir)
    for split in args.split or opened.config.eval.splits:
        with tqdm(unit="", leave=False, disable=not sys.stderr.isatty()) as bar:

            def progress(stage, done, total):
                if bar.disable:
                    return
                if bar.desc != f"{split} {stage}: ":
                    bar.reset(total)
                    bar.set_description(f"{split} {stage}")
                bar.update(done - bar.n)

            result = runs.evaluate(opened, split, data=args.data, checkpoint=args.checkpoint, progress=progress)
        print(format_table(result))
        print(f"written to {result['file']}\n")
    return 0
