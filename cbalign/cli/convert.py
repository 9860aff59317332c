"""Converts a public checkpoint into a folder that a run can start from (config.init.weights).

  cbalign convert --source=deit --checkpoint=deit_base_patch16_224.pth --config=CONFIG --out=weights/deit
  cbalign convert --source=bert --checkpoint=bert-base-uncased --config=CONFIG --out=weights/bert
  cbalign convert --source=albef --checkpoint=ALBEF.pth --config=CONFIG --out=weights/albef
  cbalign convert --source=word_embeddings --checkpoint=BERT --config=CONFIG --out=weights/words
  cbalign train --config=CONFIG --workdir=DIR --config.init.weights=weights/deit,weights/bert

Prints what was matched, what a run will initialise and what is unused, with counts and norms. An undeclared tensor, or
a size that differs from the config's, is an error. Position embeddings are interpolated to the config's
resolution.
"""

HELP = "turn DeiT, ViT, BERT, ALBEF or TCL weights into a folder to start from"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign convert`."""
    from cbalign.weights import SOURCES

    parser.add_argument("--source", required=True, choices=(*SOURCES, "word_embeddings"), help="kind of checkpoint")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help=".pth, .bin or .safetensors file, folder that transformers wrote, or a name on the hub",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config of the run that will start from it")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder to write")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="changes a field of the config")


def run(args) -> None:
    """Converts and prints the report."""
    from cbalign.config import load_config
    from cbalign.models.towers import sizes_of
    from cbalign.weights.conversion_report import format_report
    from cbalign.weights.convert import convert

    config = load_config(args.config, args.overrides)
    if args.source == "word_embeddings":
        _write_word_embeddings(args, config)
        return
    info = convert(
        args.source,
        args.checkpoint,
        args.out,
        sizes=sizes_of(config.model, image_size=config.data.image_size, vocab_size=config.data.vocabulary_size),
        embed_dim=config.model.embed_dim,
        num_codes=config.codebook.num_codes,
        queue_size=config.queue.size,
        vocabulary=config.data.vocabulary,
    )
    print(format_report(info))
    print(f"written to {args.out}; start a run from it with --config.init.weights={args.out}")


def _write_word_embeddings(args, config) -> None:
    from cbalign.weights.word_embeddings import write_word_embeddings

    info = write_word_embeddings(
        args.checkpoint,
        args.out,
        width=config.model.text_width,
        vocabulary_size=config.data.vocabulary_size,
        init_std=config.model.init_std,
    )
    print(
        f"{info['sizes']['vocab_size']:,} words of {args.checkpoint}, {config.model.text_width} wide: "
        f"{100 * info['kept_variance']:.1f} % of the variance is kept\n"
        f"written to {args.out}; start a run from it with --config.init.weights={args.out}"
    )
