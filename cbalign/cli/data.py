"""Builds the data sets this project knows, checks and shows them, and imports images and captions of your own.

  cbalign data build scenes/tiny --data-dir=data
  cbalign data build coco_karpathy
  cbalign data check coco_karpathy --manual-dir=/data/coco
  cbalign data build coco_karpathy --manual-dir=/data/coco --data-dir=data --workers=8
  cbalign data show coco_karpathy --split=val --data-dir=data
  cbalign data import --images=photos --captions=captions.csv --out=data/photos

Data sets of the literature are made of files that you fetch yourself; built without --manual-dir they say which.
Other commands take the name or the imported folder as the data set.
"""

import argparse
import os

HELP = "build, check or show a data set, or import images and captions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign data`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions.add_parser("build", help="build a known data set and count its splits", allow_abbrev=False))
    _add_check(actions.add_parser("check", help="find what is wrong with files before building", allow_abbrev=False))
    _add_show(actions.add_parser("show", help="statistics and a sheet of images with texts", allow_abbrev=False))
    _add_import(
        actions.add_parser("import", help="import a folder of images and a file of captions", allow_abbrev=False)
    )


def _add_build(build: argparse.ArgumentParser) -> None:
    build.add_argument("name", metavar="NAME", help="name of a data set, NAME/CONFIG, or an imported folder")
    _add_data_dir(build)
    build.add_argument("--manual-dir", metavar="DIR", help="folder of the official files you have fetched")
    _add_workers(build)
    build.add_argument("--max-bad", type=float, default=0.05, metavar="SHARE",
                       help="share of a split's records that may be unusable (%(default)s)")


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("name", metavar="NAME", nargs="?", help="name of a data set made of files you have fetched")
    check.add_argument("--manual-dir", metavar="DIR", help="folder of its official files")
    check.add_argument("--images", metavar="DIR", help="or else: folder of your own images")
    check.add_argument("--captions", metavar="FILE", help="and .csv, .tsv, .jsonl or .json of their captions")
    check.add_argument("--out", metavar="FILE", help="write everything found, with all names, as JSON")
    _add_workers(check)
    check.add_argument("--min-side", type=int, default=32, metavar="PIXELS",
                       help="images with a shorter side are too small (%(default)s)")
    check.add_argument("--max-words", type=int, default=30, metavar="N",
                       help="texts of more words are too long, and will be cut (%(default)s)")


def _add_show(show: argparse.ArgumentParser) -> None:
    show.add_argument("name", metavar="NAME", help="name of a built data set, or an imported folder")
    _add_data_dir(show)
    show.add_argument("--split", metavar="SPLIT", help="all splits if not given")
    show.add_argument("--sample", type=int, default=2000, metavar="N", help="records that are read (%(default)s)")
    show.add_argument("--examples", type=int, default=24, metavar="N", help="records on the sheet (%(default)s)")
    show.add_argument("--out", metavar="FILE", help="the sheet, .png; NAME-SPLIT.png here if not given")


def _add_import(take: argparse.ArgumentParser) -> None:
    take.add_argument("--images", required=True, metavar="DIR", help="folder of the images")
    take.add_argument("--captions", required=True, metavar="FILE", help=".csv or .tsv with a header, .jsonl or .json")
    take.add_argument("--out", required=True, metavar="DIR", help="new folder to write the data set to")
    take.add_argument("--name", help="name of the data set; that of the folder if not given")
    take.add_argument("--max-bad", type=float, default=0.05, metavar="SHARE",
                      help="share of the rows that may be unusable (%(default)s)")
    take.add_argument("--val", type=float, default=0.0, metavar="SHARE", help="images for validation (%(default)s)")
    take.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="images for testing (%(default)s)")
    take.add_argument("--seed", type=int, default=0, help="seed of the split (%(default)s)")
    take.add_argument("--max-side", type=int, default=512, metavar="PIXELS",
                      help="larger images are reduced to this long side (%(default)s)")
    take.add_argument("--max-pixels", type=int, default=64_000_000, metavar="N",
                      help="images of more pixels are refused undecoded (%(default)s)")


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where data sets are kept; TFDS_DATA_DIR if not given")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="threads (%(default)s, the cores of this machine)")


def run(args: argparse.Namespace) -> None:
    """Does what is asked for, and prints the counts."""
    {"build": _build, "check": _check, "show": _show, "import": _import}[args.action](args)


def _build(args: argparse.Namespace) -> None:
    from cbalign.data.datasets.official.accounts import built_lines
    from cbalign.data.datasets.catalogue import prepare

    builder = prepare(
        args.name, args.data_dir, manual_dir=args.manual_dir, workers=args.workers, max_bad=args.max_bad
    )
    for line in built_lines(builder):
        print(line)


def _check(args: argparse.Namespace) -> None:
    from cbalign.data.check import check

    for line in check(
        args.name, args.manual_dir, args.images, args.captions, args.out, workers=args.workers, min_side=args.min_side,
        max_words=args.max_words,
    ):
        print(line)


def _show(args: argparse.Namespace) -> None:
    from cbalign.data.show import show

    for line in show(
        args.name, args.data_dir, args.split, args.out, records=args.sample, examples=args.examples
    ):
        print(line, flush=True)


def _import(args: argparse.Namespace) -> None:
    from cbalign.data.datasets.folder import REPORT, import_folder

    report = import_folder(
        args.images, args.captions, args.out, name=args.name, max_bad=args.max_bad, val=args.val, test=args.test,
        seed=args.seed, max_side=args.max_side, max_pixels=args.max_pixels,
    )
    for split, count in report["splits"].items():
        print(f"{split:<14}{count:>9,} images")
    print(f"in {args.out}")
    for reason, entry in report["skipped"].items():
        print(f"skipped {entry['rows']} of {report['rows']} rows: {reason} (listed in {args.out}/{REPORT})")
