"""Converts a public checkpoint into a folder that a run can start from (config.init.weights).

  cbalign convert --source=deit --checkpoint=deit_base_patch16_224.pth --config=CONFIG --out=weights/deit
  cbalign convert --source=bert --checkpoint=bert-base-uncased --config=CONFIG --out=weights/bert
  cbalign convert --source=albef --checkpoint=ALBEF.pth --config=CONFIG --out=weights/albef
  cbalign train --config=CONFIG --workdir=DIR --config.init.weights=weights/deit,weights/bert

Prints what was matched, what a run initialises and what is unused, with counts and norms. A tensor that is not
declared, or a size that is not the config's, is an error. Position embeddings are interpolated to the config's
resolution.
"""

HELP = "turn DeiT, ViT, BERT, ALBEF or TCL weights into a folder to start from"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign convert`."""
    from cbalign.weights import SOURCES

    parser.add_argument("--source", required=True, choices=SOURCES, help="what kind of checkpoint it is")
    parser.add_argument("--checkpoint", required=True, metavar="PATH", help=".pth, .bin or .safetensors file, folder "
                        "of transformers, or a name on the hub")
    parser.add_argument("--config", required=True, metavar="FILE", help="config of the run to come")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder to write")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="overrides a field")


def run(args) -> None:
    """Converts and prints the report."""
    from cbalign.config import load_config
    from cbalign.weights.convert import convert
    from cbalign.weights.conversion_report import format_report

    print(format_report(convert(args.source, args.checkpoint, load_config(args.config, args.overrides), args.out)))
    print(f"written to {args.out}; start a run from it with --config.init.weights={args.out}")
