"""Writes a run's weights for other programs.

  cbalign export --workdir=runs/emoji --out=weights/emoji
  cbalign export --workdir=runs/emoji --out=weights/emoji_hub --format=hub
  cbalign export --workdir=runs/emoji --out=weights/emoji_albef --format=albef

safetensors: student and teacher by this project's names, with config and vocabulary. `cbalign.load` and every
command with --weights take the folder in place of the run's; another run starts from it with config.init.weights.
hub: the student with config, tokenizer, model card and a PyTorch model: a folder that a hub takes, that `cbalign.load`
opens, and `transformers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)`.
albef: a state dict that ALBEF's own code loads, teacher and queues included, with its config files.
"""

from cbalign.cli import model_flags

HELP = "write a run's weights as safetensors, for a model hub, or for ALBEF's code"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign export`."""
    model_flags.add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder to write")
    parser.add_argument(
        "--format", choices=("safetensors", "hub", "albef"), default="safetensors", help="safetensors by default"
    )
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="float16 halves the size")
    parser.add_argument("--no-teacher", action="store_true", help="leave the momentum teacher out")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="which; best by default")


def run(args) -> None:
    """Writes and prints the path."""
    from cbalign.runs.export import export_run
    from cbalign.runs.workdir import open_run

    written = export_run(
        open_run(args.workdir),
        args.out,
        form=args.format,
        checkpoint=args.checkpoint,
        dtype=args.dtype,
        teacher=not args.no_teacher,
    )
    print(written)
