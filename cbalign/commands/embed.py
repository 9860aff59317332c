"""Writes the features of a folder of pictures, or of the lines of a text file, with the names they belong to.

  cbalign embed --workdir=runs/emoji --images=holiday --out=holiday.npz
  cbalign embed --workdir=runs/emoji --texts=captions.txt --out=captions.npz

The file holds `names` (paths within the folder, or the texts), `features` (float32, one row of unit length a name) and
`weights` (which model they are of): the cosine of a text and a picture is the product of their rows.

  texts, pictures = numpy.load("captions.npz"), numpy.load("holiday.npz")
  scores = texts["features"] @ pictures["features"].T
"""

import sys

HELP = "write the features of pictures or texts to a file"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign embed`."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run")
    parser.add_argument("--images", metavar="FOLDER", help="pictures, in any format; sub-folders too")
    parser.add_argument("--texts", metavar="FILE", help="a text file, one text a line, UTF-8")
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="the file to write")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Encodes and writes."""
    from cbalign.errors import UserError

    if (args.images is None) == (args.texts is None):
        raise UserError("embed takes either --images=FOLDER or --texts=FILE"
                        + ("; both were given" if args.texts is not None else ""))
    from cbalign import embed, runs, search
    from cbalign.commands.search import reading_bar, warn

    embed.check_output(args.out)
    texts = None if args.texts is None else embed.read_texts(args.texts)
    search.keep_compiled()
    opened = runs.open_run(args.workdir)
    encoder = search.Encoder.of(opened, checkpoint=args.checkpoint)
    with reading_bar("picture" if texts is None else "text") as progress:
        if texts is None:
            result = embed.embed_images(opened, args.images, encoder=encoder, progress=progress)
        else:
            result = embed.embed_texts(encoder, texts, progress=progress)
    warn(result.notes, result.skipped)
    embed.save(args.out, result)
    count, width = result.features.shape
    print(f"{args.out}: {count:,} {'texts' if texts else 'pictures'}, features of {width} numbers", file=sys.stderr)
    return 0
