"""Ranks a folder of your own images for a text, or for another image.

  cbalign search --workdir=runs/emoji --images=holiday "a delivery truck"
  cbalign search --workdir=runs/emoji --images=holiday --like=holiday/truck.jpg --top=5
  cbalign search --workdir=runs/emoji --images=holiday --json "a delivery truck"
  cbalign search --weights=icons --sheet=found.png "a delivery truck" "something to drink"

Prints rank, score (cosine of the features, at most 1) and path, best first; of several texts one after another.
Sub-folders and linked folders are searched too. Without --images, the images are those that the demo renders: emoji of
a vendor that training does not see, or drawn scenes. The images' features are stored in search/ in the workdir, as
safetensors; the next search reads new and changed files alone.
"""

import json
import pathlib
import sys

from cbalign.cli import model_flags
from cbalign.cli.pictures import picture_file, write_picture

HELP = "rank a folder of images for a text or an image"

# Skipped files named one by one; --json names all.
_NAMED = 20


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign search`."""
    parser.add_argument("text", nargs="*", metavar="TEXT", help="what to look for, in words")
    parser.add_argument("--like", metavar="IMAGE", help="an image to look for instead")
    model_flags.add_arguments(parser)
    parser.add_argument("--images", metavar="FOLDER", help="images to search; by default some are rendered")
    parser.add_argument("--sheet", metavar="FILE.png", help="write a picture of the hits, a row for each text")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="images to show; 10 by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Searches and prints."""
    from cbalign.errors import UserError

    if bool(args.text) == bool(args.like):
        raise UserError(
            'search takes either texts, as in "a delivery truck", or --like=IMAGE'
            + ("; both were given" if args.like else "")
        )
    if args.top < 1:
        raise UserError(f"--top={args.top} must be 1 or more")
    sheet = picture_file("--sheet", args.sheet) if args.sheet else None
    from cbalign import inference
    from cbalign.cli.progress import count_bar

    inference.keep_compiled()
    source = inference.open_source(args.workdir, checkpoint=args.checkpoint)
    encoder = inference.Encoder.of(source)
    encoded = [(args.like, encoder.image(args.like), [])] if args.like else [(t, *encoder.text(t)) for t in args.text]
    with count_bar("reading", "image") as progress:
        index = inference.index_folder(
            args.images or rendered_images(source), encoder=encoder, cache=source.cache, progress=progress
        )
    folder_notes = index.notes if args.images else []  # what is rendered has captions beside it
    warn([note for *_, notes in encoded for note in notes] + folder_notes, index.skipped)
    found = [(name, inference.search(index, query, args.top)) for name, query, _ in encoded]
    for number, (query, hits) in enumerate(found):
        if len(found) > 1 and not args.json:
            print(f"{'' if number == 0 else chr(10)}{_shown(query)}")
        _print(query, hits, index, as_json=args.json)
    if sheet:
        from cbalign.data.image_files import to_png
        from cbalign.report.hit_sheet import hit_sheet

        write_picture("--sheet", sheet, to_png(hit_sheet(found)))
        print(f"cbalign: wrote {sheet}", file=sys.stderr)
    return 0


def rendered_images(source) -> pathlib.Path:
    """The images that stand in for --images, like those a model was trained on; says which they are."""
    from cbalign.report.demo.sets import rendered_set

    folder, what = rendered_set(source.task.config.data.name)
    print(f"cbalign: without --images, using {what}, in {folder}", file=sys.stderr)
    return folder


def warn(notes, skipped) -> None:
    """Prints notes, and which images were skipped and why, on standard error."""
    for note in notes:
        print(f"cbalign: {note}", file=sys.stderr)
    if skipped:
        print(
            f"cbalign: skipped {len(skipped)} {'image' if len(skipped) == 1 else 'images'} that cannot be read:",
            file=sys.stderr,
        )
    for path, reason in skipped[:_NAMED]:
        print(f"  {_shown(path)}: {reason}", file=sys.stderr)
    if len(skipped) > _NAMED:
        print(f"  and {len(skipped) - _NAMED} more", file=sys.stderr)


def _print(query, hits, index, *, as_json: bool) -> None:
    if as_json:
        results = [{"rank": rank, "score": score, "path": path} for rank, (score, path) in enumerate(hits, 1)]
        print(
            json.dumps(
                {
                    "query": query,
                    "results": results,
                    "skipped": [entry._asdict() for entry in index.skipped],
                    "left_out": index.left_out,
                }
            )
        )
        return
    for rank, (score, path) in enumerate(hits, 1):
        print(f"{rank:>4}  {score:7.4f}  {_shown(path)}")


def _shown(path: str) -> str:
    # File names need not be valid text, what is printed must be.
    return path.encode(errors="replace").decode()
