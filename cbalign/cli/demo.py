"""Serves a web page on which a trained model is tried: search, matching, predictions, classes typed by hand.

  cbalign demo
  cbalign demo --weights=runs/emoji --images=holiday
  cbalign demo --weights=weights/emoji --port=8000

Prints the page's address and serves it until Ctrl-C; the model is that of the weights icons by default. Without
--images it shows a set of images that is rendered once. Files outside the folder are not served, nor links that lead
there. If the folder holds captions.csv, .tsv, .jsonl or .json (columns image and caption), the page shows them.

The page is for this machine alone. --host=0.0.0.0 opens it to everyone who can reach the machine, without a password;
to reach it from elsewhere, prefer `ssh -L 7860:localhost:7860 MACHINE`.
"""

import argparse

from cbalign.cli import model_flags

HELP = "serve a web page on which a model is tried"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign demo`."""
    model_flags.add_arguments(parser, default="icons")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")
    parser.add_argument("--images", metavar="FOLDER", help="images to search, in any format; a rendered set by default")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on; this machine alone by default"
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port; the first free one from 7860 on by default, 0 for any free one"
    )


def run(args: argparse.Namespace) -> int:
    """Serves the page."""
    import gradio  # noqa: F401 - a missing extra is named before anything takes time

    from cbalign import inference
    from cbalign.cli.progress import count_bar
    from cbalign.report.demo.serve import serve

    inference.keep_compiled()
    with count_bar("reading", "image") as progress:
        serve(
            args.workdir,
            checkpoint=args.checkpoint,
            images=args.images,
            host=args.host,
            port=args.port,
            progress=progress,
        )
    return 0
