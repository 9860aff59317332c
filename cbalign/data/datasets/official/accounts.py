"""What a manual folder holds, told to a person: counts against the published ones, and what cannot be used."""

import json
from collections.abc import Mapping

import tensorflow_datasets as tfds

from cbalign.data.datasets.official.manual import EMPTY_FILE, MISSING, NO_TEXT, Contents
from cbalign.errors import UserError

REPORT = "build_report.json"

# Other reasons, such as a statement nobody agreed upon, are the data set's own.
_UNUSABLE = (MISSING, EMPTY_FILE, NO_TEXT)


def built_lines(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Returns lines that tell what a built data set holds, what was left out, and where it lies."""
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    report = builder.data_path / REPORT
    left_out = json.loads(report.read_text())["left_out"] if report.exists() else {}
    return [
        *count_lines(counts, getattr(builder, "EXPECTED", {})), *left_out_lines(left_out), f"in {builder.data_path}",
    ]


def count_lines(counts: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """Returns a line a split: its records, and how they compare with the published number."""
    lines = []
    for split, count in counts.items():
        published = expected.get(split)
        if published is None:
            verdict = ""
        elif count == published:
            verdict = "  as published"
        else:
            verdict = f"  warning: {published:,} are published ({count - published:+,})"
        lines.append(f"{split:<14}{count:>11,} records{verdict}")
    return lines


def left_out_lines(left_out: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Returns a line a split and reason: how many records are left out, with an example."""
    return [
        f"{split:<14}{len(names):>11,} left out: {reason} (such as {names[0]})"
        for split, reasons in left_out.items() for reason, names in sorted(reasons.items())
    ]


def check_share(contents: Contents, max_bad: float) -> None:
    """Raises UserError if in any split more than `max_bad` of what the official files list is missing or empty."""
    for split, listing in contents.splits.items():
        bad = sum(len(names) for reason, names in listing.left_out.items() if reason in _UNUSABLE)
        if bad > max_bad * listing.listed:
            raise UserError(
                f"{bad:,} of {listing.listed:,} records of the split {split} cannot be used, more than "
                f"--max-bad={max_bad:g} allows: see cbalign data check, mend the files, or raise --max-bad"
            )
