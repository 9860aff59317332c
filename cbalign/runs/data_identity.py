"""The fingerprint of the data a run is trained on, so that other data under the same name is noticed.

`data.json` in the workdir holds {source: {split: {"records", "bytes", "index"}}}: number of records, size of the files,
and digest of the index, which covers texts, numbers and the length of every record.
"""

from __future__ import annotations

from typing import Any

from etils import epath

from cbalign.errors import UserError
from cbalign.storage import read_json, write_json

DATA = "data.json"


def identify_data(config: Any) -> dict[str, dict[str, dict]]:
    """The fingerprint of the data set, or the mixture, that a config names."""
    from cbalign.data.records import data_fingerprint

    return data_fingerprint(config.data.name, config.data.dir or None)


def store_identity(workdir: epath.Path, identity: dict) -> None:
    """Writes the fingerprint of a run's data."""
    write_json(workdir / DATA, identity)


def check_identity(workdir: epath.Path, identity: dict) -> bool:
    """Compares a run's data with what it was trained on.

    Returns:
      Whether the run has a fingerprint; those of older versions have none, which is printed.

    Raises:
      UserError: the data has changed.
    """
    stored = read_json(workdir / DATA)
    if stored is None:
        print(
            f"note: {workdir} has no {DATA} (older versions wrote none), so that nobody knows whether its data is "
            "still the same; it is taken to be",
            flush=True,
        )
        return False
    changes = _changes(stored, identity)
    if changes:
        raise UserError(
            f"the data of {workdir} has changed since it was trained: {'; '.join(changes)}. Put the former data back; "
            f"or train a new --workdir, from this run's weights with --config.init.weights={workdir}; or, if the "
            f"change is meant, delete {workdir / DATA}"
        )
    return True


def _changes(stored: dict, found: dict) -> list[str]:
    changes = []
    for source, splits in stored.items():
        for split, old in splits.items():
            new = found.get(source, {}).get(split)
            if new is None:
                changes.append(f"{source} lacks the split {split}")
            elif new["records"] != old["records"] or new["bytes"] != old["bytes"]:
                changes.append(
                    f"{split} of {source} had {old['records']:,} records in {old['bytes']:,} bytes, and has "
                    f"{new['records']:,} in {new['bytes']:,}"
                )
            elif new["index"] != old["index"]:
                changes.append(f"{split} of {source} has other texts, ids or images in as many records and bytes")
    return changes
