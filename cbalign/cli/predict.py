"""Answers about your own images.

  cbalign predict --workdir=runs/vqa --task=vqa --image=shapes.png "what colour is the circle?"
  cbalign predict --workdir=runs/nlvr2 --task=nlvr2 --image=left.png --image=right.png "both images show a star"
  cbalign predict --workdir=runs/ve --task=snli_ve --image=shapes.png "the circle is red"
  cbalign predict --workdir=runs/emoji --task=match --image=truck.png "a delivery truck"

Prints the likeliest answers with their probabilities, best first. The run must have been trained for the task.
"""

import json
import sys

from cbalign.cli import model_flags

HELP = "answer a question, or judge a sentence, about your own images"
TASKS = ("vqa", "nlvr2", "snli_ve", "match")


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign predict`."""
    parser.add_argument("text", metavar="TEXT", help="the question, statement, hypothesis or description")
    model_flags.add_arguments(parser)
    parser.add_argument("--task", required=True, choices=TASKS, help="what to ask of the model")
    parser.add_argument(
        "--image",
        required=True,
        action="append",
        metavar="FILE",
        help="an image in any format; twice for nlvr2, the left one first",
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="answers to show; 5 by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Predicts and prints."""
    from cbalign.errors import UserError

    if args.top < 1:
        raise UserError(f"--top={args.top} must be 1 or more")
    from cbalign.inference import Predictor

    predictor = Predictor(args.workdir, task=args.task, checkpoint=args.checkpoint)
    found, notes = predictor.with_notes(args.image, args.text, top=args.top)
    for note in notes:
        print(f"cbalign: {note}", file=sys.stderr)
    if args.json:
        answers = [{"answer": answer, "probability": probability} for answer, probability in found]
        print(json.dumps({"task": args.task, "images": args.image, "text": args.text, "answers": answers}))
        return 0
    for answer, probability in found:
        print(f"{100 * probability:6.2f} %  {answer}")
    return 0
