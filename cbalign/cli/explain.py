"""Draws why a model pairs an image with a text: attention by word, scores, and the codes both sides choose.

  cbalign explain --weights=icons --image=umbrella.png "a red umbrella"
  cbalign explain --workdir=runs/emoji --image=umbrella.png --images=holiday --out=FILE.png "a red umbrella"

Writes one PNG: the image, a map for each word of where the model looks, the pair's scores, and the top codes of both
sides, each with its nearest images of --images. Without --images, these are the images that the demo renders: emoji of
a vendor that training does not see, or drawn scenes. Prints the scores and the codes.
"""

import pathlib

from cbalign.cli import model_flags
from cbalign.cli.pictures import picture_file, write_picture

HELP = "draw attention by word, scores and codes of an image and a text"

# Images shown beside each code.
_NEIGHBOURS = 4


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign explain`."""
    parser.add_argument("text", metavar="TEXT", help="what the image may show, in words")
    model_flags.add_arguments(parser)
    parser.add_argument("--image", required=True, metavar="FILE", help="an image in any format")
    parser.add_argument(
        "--out", metavar="FILE.png", help="the picture to write; IMAGE_explained.png in this folder by default"
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="images of which the nearest to each code are shown; by default some are rendered",
    )
    parser.add_argument("--top", type=int, default=4, metavar="N", help="codes of each side; 4 by default")
    parser.add_argument(
        "--layer",
        type=int,
        metavar="N",
        help="fusion layer of the attention, from 0; by default the third of six, the middle one of any model",
    )
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> int:
    """Explains, writes and prints."""
    from cbalign import inference
    from cbalign.cli.progress import count_bar
    from cbalign.cli.search import rendered_images, warn
    from cbalign.errors import UserError
    from cbalign.report.heat import explanation_png, scores_line

    out = picture_file("--out", args.out or f"{pathlib.Path(args.image).stem}_explained.png")
    if args.top < 1:
        raise UserError(f"--top={args.top} must be 1 or more")
    inference.keep_compiled()
    source = inference.open_source(args.workdir, checkpoint=args.checkpoint)
    found = inference.Explainer(source)(args.image, args.text, layer=args.layer, top=args.top)
    neighbours: dict[str, list] = {}
    if args.images or found.image_codes is not None:
        codebook, encoder = inference.TrainedCodebook.of(source), inference.Encoder.of(source)
        images = args.images or rendered_images(source)
        with count_bar("reading", "image") as progress:
            index = inference.index_folder(images, encoder=encoder, cache=source.cache, progress=progress)
        warn(index.notes if args.images else [], index.skipped)
        for side, codes in (("image", found.image_codes), ("text", found.text_codes)):
            assert codes is not None
            hits = codebook.neighbours(codes.codes, index, _NEIGHBOURS)
            neighbours[f"{side}_neighbours"] = [[_picture(hit.path) for hit in one] for one in hits]
    write_picture("--out", out, explanation_png(found, **neighbours))
    warn(found.notes, [])
    print(scores_line(found))
    for side, codes in (("image", found.image_codes), ("text", found.text_codes)):
        if codes is not None:
            shown = (f"{code} ({100 * share:.1f} %)" for code, share in zip(codes.codes, codes.probabilities))
            print(f"codes of the {side}: {', '.join(shown)}")
    print(out)
    return 0


def _picture(path: str):
    from PIL import Image

    from cbalign.inference.encoder import usable_image

    return Image.fromarray(usable_image(path, 96))
