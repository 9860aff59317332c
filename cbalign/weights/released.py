"""Weights that come with the package, by name."""

from __future__ import annotations

import importlib.resources
import os
import pathlib

from etils import epath

from cbalign.weights import weights_folder


def released() -> dict[str, pathlib.Path]:
    """{name: folder} of the weights that come with the package."""
    root = pathlib.Path(str(importlib.resources.files("cbalign"))) / "released"
    if not root.is_dir():
        return {}
    return {entry.name: entry for entry in sorted(root.iterdir()) if (entry / weights_folder.INFO).is_file()}


def locate(source: os.PathLike | str) -> epath.Path:
    """The folder that a name stands for: a folder of that name if it exists, else that of released weights."""
    folder = epath.Path(source)
    known = {} if folder.exists() else released()
    return epath.Path(known[os.fspath(source)]) if os.fspath(source) in known else folder


def known_names() -> str:
    """The names of released weights, for messages."""
    return ", ".join(sorted(released())) or "this version comes with none"
