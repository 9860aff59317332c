"""Writes the features of a folder of images, or of the lines of a text file, with the names they belong to.

  cbalign embed --workdir=runs/emoji --images=holiday --out=holiday.npz
  cbalign embed --workdir=runs/emoji --texts=captions.txt --out=captions.npz

The file holds `names` (paths within the folder, or the texts), `features` (float32, one row of unit length a name) and
`weights` (the model's digest): the cosine of a text and an image is the product of their rows.

  texts, images = numpy.load("captions.npz"), numpy.load("holiday.npz")
  scores = texts["features"] @ images["features"].T
"""

import sys

from cbalign.cli import model_flags

HELP = "write the features of images or texts to a file"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign embed`."""
    model_flags.add_arguments(parser)
    parser.add_argument("--images", metavar="FOLDER", help="images, in any format; sub-folders too")
    parser.add_argument("--texts", metavar="FILE", help="a text file, one text a line, UTF-8")
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="the file to write")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Encodes and writes."""
    from cbalign.errors import UserError

    if (args.images is None) == (args.texts is None):
        raise UserError(
            "embed takes either --images=FOLDER or --texts=FILE"
            + ("; both were given" if args.texts is not None else "")
        )
    from cbalign import inference
    from cbalign.cli.progress import count_bar
    from cbalign.cli.search import warn
    from cbalign.inference import embedding

    embedding.check_output(args.out)
    texts = None if args.texts is None else embedding.read_texts(args.texts)
    inference.keep_compiled()
    source = inference.open_source(args.workdir, checkpoint=args.checkpoint)
    encoder = inference.Encoder.of(source)
    with count_bar("reading", "image" if texts is None else "text") as progress:
        if texts is None:
            result = embedding.embed_images(args.images, encoder=encoder, cache=source.cache, progress=progress)
        else:
            result = embedding.embed_texts(encoder, texts, progress=progress)
    warn(result.notes, result.skipped)
    embedding.save(args.out, result)
    count, width = result.features.shape
    print(f"{args.out}: {count:,} {'texts' if texts else 'images'}, features of {width} numbers", file=sys.stderr)
    return 0
