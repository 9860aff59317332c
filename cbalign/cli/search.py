"""Ranks a folder of your own images for a text, or for another image.

  cbalign search --workdir=runs/emoji --images=holiday "a delivery truck"
  cbalign search --workdir=runs/emoji --images=holiday --like=holiday/truck.jpg --top=5
  cbalign search --workdir=runs/emoji --images=holiday --json "a delivery truck"

Prints rank, score (cosine of the features, at most 1) and path, best first. Sub-folders and linked folders are searched
too. The images' features are stored in search/ in the workdir; the next search reads new and changed files alone.
"""

import json
import sys

from cbalign.cli import model_flags

HELP = "rank a folder of images for a text or an image"

# Skipped files named one by one; --json names all.
_NAMED = 20


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign search`."""
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what to look for, in words")
    parser.add_argument("--like", metavar="IMAGE", help="an image to look for instead")
    model_flags.add_arguments(parser)
    parser.add_argument("--images", required=True, metavar="FOLDER", help="images to search, in any format")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="images to show; 10 by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Searches and prints."""
    from cbalign.errors import UserError

    if (args.text is None) == (args.like is None):
        raise UserError(
            'search takes either a text, as in "a delivery truck", or --like=IMAGE'
            + ("; both were given" if args.like is not None else "")
        )
    if args.top < 1:
        raise UserError(f"--top={args.top} must be 1 or more")
    from cbalign import inference
    from cbalign.cli.progress import count_bar

    inference.keep_compiled()
    source = inference.open_source(args.workdir, checkpoint=args.checkpoint)
    encoder = inference.Encoder.of(source)
    query, notes = encoder.text(args.text) if args.like is None else (encoder.image(args.like), [])
    with count_bar("reading", "image") as progress:
        index = inference.index_folder(args.images, encoder=encoder, cache=source.cache, progress=progress)
    warn(notes + index.notes, index.skipped)
    hits = inference.search(index, query, args.top)
    _print(args.like if args.text is None else args.text, hits, index, as_json=args.json)
    return 0


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
