"""The report of a build, for the user: record counts beside the published ones, and what was skipped and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow_datasets as tfds

from cbalign.data.datasets.caption_values import NOT_TEXT, NULL, TOKENS
from cbalign.data.datasets.official.official_builder import NO_TEXT, Contents
from cbalign.data.datasets.official.official_files import EMPTY_FILE, MISSING
from cbalign.errors import UserError
from cbalign.storage import read_json

BUILD_REPORT = "build_report.json"

# Other reasons, such as a sentence without an agreed label, are part of the data set's definition.
_FAULTS = (MISSING, EMPTY_FILE, NO_TEXT, NULL, NOT_TEXT, TOKENS)
# How far a number of texts may be from a rounded published one.
_NEAR = 0.05


def built_lines(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Lines that state the records of a built data set, the skipped ones, and its folder."""
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    report = read_json(builder.data_path / BUILD_REPORT) or {}
    return [
        *count_lines(counts, getattr(builder, "EXPECTED", {})),
        *text_lines(_text_counts(builder, counts), getattr(builder, "EXPECTED_TEXTS", {})),
        *skipped_lines(report.get("skipped", {})),
        f"in {builder.data_path}",
    ]


def count_lines(counts: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """One line a split: its number of records compared with the published number."""
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


def _text_counts(builder: tfds.core.DatasetBuilder, splits: Iterable[str]) -> dict[str, int]:
    """{split: number of its captions}; {} for records that have one text each."""
    from cbalign.data.datasets.schema import KINDS
    from cbalign.data.split_index import load_index

    feature = KINDS["captions"].text
    if feature not in builder.info.features:
        return {}
    return {split: len(load_index(builder, split).columns[feature].strings) for split in splits}


def text_lines(counts: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """One line a split: its number of captions, with a warning where it is far from the published number."""
    lines = []
    for split, count in counts.items():
        published, verdict = expected.get(split), ""
        if published is not None:
            near = abs(count - published) <= _NEAR * published
            verdict = f"  {'' if near else 'warning: '}about {published:,} are published ({count - published:+,})"
        lines.append(f"{split:<14}{count:>11,} captions{verdict}")
    return lines


def skipped_lines(skipped: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """One line for each split and reason: the number of records skipped, with an example.

    Args:
      skipped: {split: {reason: names}}.
    """
    return [
        f"{split:<14}{len(names):>11,} skipped: {reason} (such as {names[0]})"
        for split, reasons in skipped.items()
        for reason, names in sorted(reasons.items())
    ]


def check_share(contents: Contents, max_bad: float) -> None:
    """Checks that in no split more than a share `max_bad` of the listed records is missing, empty or without text.

    Raises:
      UserError: a split has more.
    """
    for split, listing in contents.splits.items():
        bad = sum(len(names) for reason, names in listing.skipped.items() if reason in _FAULTS)
        if bad > max_bad * listing.listed:
            raise UserError(
                f"{bad:,} of {listing.listed:,} records of the split {split} are unusable, more than "
                f"--max-bad={max_bad:g} allows: run cbalign data check, repair the files, or raise --max-bad"
            )
