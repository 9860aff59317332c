"""Builds the data sets this project knows, and imports pictures and captions of your own.

  cbalign data build emoji
  cbalign data build scenes/tiny --data-dir=data
  cbalign data import --images=photos --captions=captions.csv --out=data/photos

Other commands take the name (`emoji`, `scenes`) or the imported folder as the data set.
"""

import argparse

HELP = "build a known data set, or import pictures and captions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign data`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="build a known data set and count its splits", allow_abbrev=False)
    build.add_argument("name", metavar="NAME", help="emoji, scenes, scenes/CONFIG, or an imported folder")
    build.add_argument("--data-dir", metavar="DIR", help="where data sets are kept; TFDS_DATA_DIR if not given")
    take = actions.add_parser("import", help="import a folder of pictures and a file of captions", allow_abbrev=False)
    take.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    take.add_argument("--captions", required=True, metavar="FILE", help=".csv or .tsv with a header, .jsonl or .json")
    take.add_argument("--out", required=True, metavar="DIR", help="new folder to write the data set to")
    take.add_argument("--name", help="name of the data set; that of the folder if not given")
    take.add_argument("--max-bad", type=float, default=0.05, metavar="SHARE",
                      help="share of the rows that may be unusable (%(default)s)")
    take.add_argument("--val", type=float, default=0.0, metavar="SHARE", help="pictures for validation (%(default)s)")
    take.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="pictures for testing (%(default)s)")
    take.add_argument("--seed", type=int, default=0, help="seed of the split (%(default)s)")
    take.add_argument("--max-side", type=int, default=512, metavar="PIXELS",
                      help="larger pictures are reduced to this long side (%(default)s)")
    take.add_argument("--max-pixels", type=int, default=64_000_000, metavar="N",
                      help="pictures of more pixels are refused undecoded (%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Builds or imports, and prints the counts."""
    if args.action == "build":
        from cbalign.data.sources.catalogue import prepare

        builder = prepare(args.name, args.data_dir)
        _print_splits({split: info.num_examples for split, info in builder.info.splits.items()}, builder.data_path)
        return
    from cbalign.data.sources.folder import REPORT, import_folder

    report = import_folder(
        args.images, args.captions, args.out, name=args.name, max_bad=args.max_bad, val=args.val, test=args.test,
        seed=args.seed, max_side=args.max_side, max_pixels=args.max_pixels,
    )
    _print_splits(report["splits"], args.out)
    for reason, entry in report["skipped"].items():
        print(f"skipped {entry['rows']} of {report['rows']} rows: {reason} (listed in {args.out}/{REPORT})")


def _print_splits(splits: dict[str, int], folder) -> None:
    for split, count in splits.items():
        print(f"{split:<14}{count:>9,} pictures")
    print(f"in {folder}")
