"""Builds, checks and shows data sets, and imports your own images and captions.

  cbalign data build scenes/tiny --data-dir=data
  cbalign data build coco_karpathy
  cbalign data check coco_karpathy --manual-dir=/data/coco
  cbalign data build coco_karpathy --manual-dir=/data/coco --data-dir=data --workers=8
  cbalign data show coco_karpathy --split=val --data-dir=data
  cbalign data import --images=photos --captions=captions.csv --out=data/photos

Published data sets are built from official files that you download; run `build` without --manual-dir to see which ones.
The other commands take the name of a built data set or an imported folder.
"""

from __future__ import annotations

import argparse
import os

HELP = "build, check or show a data set, or import images and captions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign data`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions.add_parser("build", help="build a data set and count its records", allow_abbrev=False))
    _add_check(actions.add_parser("check", help="find faults in the files before building", allow_abbrev=False))
    _add_show(
        actions.add_parser(
            "show", help="print statistics and write a sheet of images with their texts", allow_abbrev=False
        )
    )
    _add_import(
        actions.add_parser("import", help="import a folder of images and a file of captions", allow_abbrev=False)
    )


def _add_build(build: argparse.ArgumentParser) -> None:
    build.add_argument("name", metavar="NAME", help="name of a data set, NAME/CONFIG, or an imported folder")
    _add_data_dir(build)
    build.add_argument("--manual-dir", metavar="DIR", help="folder with the official files that you downloaded")
    _add_workers(build)
    build.add_argument(
        "--max-bad",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="highest share of unusable records in a split (%(default)s)",
    )


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("name", metavar="NAME", nargs="?", help="name of a published data set")
    check.add_argument("--manual-dir", metavar="DIR", help="folder with its official files")
    check.add_argument("--images", metavar="DIR", help="instead of NAME: folder with your own images")
    check.add_argument(
        "--captions", metavar="FILE", help="their captions, a .csv, .tsv, .jsonl, .json or .parquet file"
    )
    check.add_argument("--out", metavar="FILE", help="JSON file for the complete report, with all names")
    _add_workers(check)
    check.add_argument(
        "--min-side", type=int, default=32, metavar="PIXELS", help="report images with a shorter side (%(default)s)"
    )
    check.add_argument(
        "--max-words",
        type=int,
        default=30,
        metavar="N",
        help="report texts with more words, which training truncates (%(default)s)",
    )


def _add_show(show: argparse.ArgumentParser) -> None:
    show.add_argument("name", metavar="NAME", help="name of a built data set, or an imported folder")
    _add_data_dir(show)
    show.add_argument("--split", metavar="SPLIT", help="split to show; default: all")
    show.add_argument(
        "--sample", type=int, default=2000, metavar="N", help="records to sample from a split (%(default)s)"
    )
    show.add_argument("--examples", type=int, default=24, metavar="N", help="records on the sheet (%(default)s)")
    show.add_argument(
        "--out", metavar="FILE", help="file for the sheet, .png; default: NAME-SPLIT.png in the current folder"
    )


def _add_import(take: argparse.ArgumentParser) -> None:
    take.add_argument("--images", required=True, metavar="DIR", help="folder with the images")
    take.add_argument(
        "--captions", required=True, metavar="FILE", help="a .csv or .tsv file with a header, .jsonl, .json or .parquet"
    )
    take.add_argument("--out", required=True, metavar="DIR", help="new folder for the data set")
    take.add_argument("--name", help="name of the data set; default: the name of the folder")
    take.add_argument(
        "--max-bad", type=float, default=0.05, metavar="SHARE", help="highest share of unusable rows (%(default)s)"
    )
    take.add_argument(
        "--val", type=float, default=0.0, metavar="SHARE", help="share of the images for validation (%(default)s)"
    )
    take.add_argument(
        "--test",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the images for testing, 1 for all (%(default)s)",
    )
    take.add_argument("--seed", type=int, default=0, help="seed of the split (%(default)s)")
    take.add_argument(
        "--joint-captions",
        action="store_true",
        help="make all images that share a caption positives of one another, however many they are",
    )
    take.add_argument(
        "--max-side",
        type=int,
        default=512,
        metavar="PIXELS",
        help="longer side to which larger images are reduced (%(default)s)",
    )
    take.add_argument(
        "--max-pixels",
        type=int,
        default=64_000_000,
        metavar="N",
        help="reject images with more pixels without decoding them (%(default)s)",
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of built data sets; default: $TFDS_DATA_DIR, else TFDS's own default"
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="number of threads (%(default)s, one per core of this machine)",
    )


def run(args: argparse.Namespace) -> None:
    """Runs one action and prints its results."""
    {"build": _build, "check": _check, "show": _show, "import": _import}[args.action](args)


def _build(args: argparse.Namespace) -> None:
    from cbalign.data.datasets.catalogue import prepare
    from cbalign.data.datasets.official.build_report import built_lines

    builder = prepare(args.name, args.data_dir, manual_dir=args.manual_dir, workers=args.workers, max_bad=args.max_bad)
    for line in built_lines(builder):
        print(line)


def _check(args: argparse.Namespace) -> None:
    from cbalign.data.check import check

    for line in check(
        args.name,
        args.manual_dir,
        args.images,
        args.captions,
        args.out,
        workers=args.workers,
        min_side=args.min_side,
        max_words=args.max_words,
    ):
        print(line)


def _show(args: argparse.Namespace) -> None:
    from cbalign.data.show import show

    for line in show(args.name, args.data_dir, args.split, args.out, records=args.sample, examples=args.examples):
        print(line, flush=True)


def _import(args: argparse.Namespace) -> None:
    from cbalign.data.datasets.folder import REPORT, import_folder

    report = import_folder(
        args.images,
        args.captions,
        args.out,
        name=args.name,
        max_bad=args.max_bad,
        val=args.val,
        test=args.test,
        seed=args.seed,
        max_side=args.max_side,
        max_pixels=args.max_pixels,
        joint_captions=args.joint_captions,
    )
    for note in report["notes"]:
        print(f"note: {note}")
    for split, count in report["splits"].items():
        print(f"{split:<14}{count:>9,} images")
    print(f"in {args.out}: {report['images']:,} images with {report['ids']:,} ids")
    for reason, entry in report["skipped"].items():
        print(f"skipped {entry['rows']} of {report['rows']} rows: {reason} (listed in {args.out}/{REPORT})")
