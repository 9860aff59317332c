"""Sorts a folder of your own images into classes that you name, without training.

  cbalign classify --weights=weights/emoji --images=holiday --classes="cat,dog,tractor"
  cbalign classify --workdir=runs/emoji --images=holiday --classes=classes.txt --out=answers.csv
  cbalign classify --workdir=runs/coco --images=photos --template="a photo of a {}" --template="a {}"

Prints a line an image: its likeliest class, the probability among the classes, and the path. Where the images lie in
folders named like the classes, the accuracy is printed too; without --classes the folders are the classes.
"""

import json
import pathlib

from cbalign.cli import model_flags

HELP = "sort a folder of images into classes that you name"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign classify`."""
    model_flags.add_arguments(parser)
    parser.add_argument("--images", required=True, metavar="FOLDER", help="images in any format; sub-folders too")
    parser.add_argument(
        "--classes",
        metavar="NAMES|FILE",
        help="names with commas between them, or a .txt file with one a line; the sub-folders of --images by default",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help='text with {} in the place of the name, repeatable: means are taken; "{}", the name alone, by default',
    )
    parser.add_argument("--top", type=int, default=1, metavar="N", help="classes to show of each image; 1 by default")
    parser.add_argument("--out", metavar="FILE", help="write the answers to this .csv or .json file instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Classifies and prints."""
    from cbalign.errors import UserError

    if args.top < 1:
        raise UserError(f"--top={args.top} must be 1 or more")
    from cbalign import inference
    from cbalign.cli.progress import count_bar
    from cbalign.cli.search import warn
    from cbalign.inference import classification

    if args.out:
        classification.check_output(args.out)
    classes = _names(args.classes)
    inference.keep_compiled()
    source = inference.open_source(args.workdir, checkpoint=args.checkpoint)
    with count_bar("reading", "image") as progress:
        result = classification.classify_folder(
            args.images,
            classes,
            encoder=inference.Encoder.of(source),
            templates=args.template or classification.TEMPLATES,
            cache=source.cache,
            progress=progress,
        )
    warn(result.notes, result.index.skipped)
    if args.out:
        classification.save(args.out, result, top=args.top)
    if args.json:
        print(json.dumps(classification.as_json(result, top=args.top)))
        return 0
    if not args.out:
        for row, path in enumerate(result.index.paths):
            answers = "  ".join(f"{100 * share:6.2f} % {name}" for name, share in result.best(row, args.top))
            print(f"{answers}  {path.encode(errors='replace').decode()}")
    _print_accuracy(result.accuracy(), len(result.index.paths))
    return 0


def _names(value: str | None) -> list[str] | None:
    """The classes that a flag names, or None where it is not given."""
    from cbalign.errors import UserError

    if value is None:
        return None
    if not value.endswith(".txt"):
        return value.split(",")
    try:
        text = pathlib.Path(value).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --classes={value} ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
    return [line for line in map(str.strip, text.splitlines()) if line]


def _print_accuracy(accuracy: dict | None, images: int) -> None:
    if accuracy is None:
        return
    top5 = "" if accuracy["top5"] is None else f", top 5 {accuracy['top5']:.1f} %"
    print(f"accuracy {accuracy['top1']:.1f} %{top5}, chance {accuracy['chance']:.1f} %", end="")
    print(f" ({accuracy['images']:,} of {images:,} images lie in a folder named like a class)")
    for name, share in accuracy["by_class"].items():
        if share is not None:
            print(f"  {share:6.1f} %  {name}")
