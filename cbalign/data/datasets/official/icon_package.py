"""Reads the npm package @iconify/json: its sets of icons, their licences, and each icon as an SVG.

A set is one JSON file (https://iconify.design/docs/types/iconify-json.html): `icons` {name: {body, width, …}},
`aliases` {name: {parent, …}}, `categories` {title: names}, and `prefixes` or `suffixes`, its own words for its styles.
`collections.json` lists the sets with author, licence and category; a file that is not listed there is retired.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from xml.etree import ElementTree

from cbalign.errors import UserError

COLLECTIONS = "collections.json"
_FORBIDDING = re.compile(r"\b(NC|ND|NonCommercial|NoDeriv\w*)\b", re.IGNORECASE)
_DEFAULT_SIDE = 16
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_TRANSFORMS = ("hFlip", "vFlip", "rotate")


@dataclasses.dataclass
class IconSet:
    """One set.

    Attributes:
      name: such as "mdi"; an icon is named "mdi/home".
      info: its entry in collections.json: "name", "author", "license", "category", "palette", "hidden", …
      icons: {name: its entry with "body", "left", "top", "width" and "height"}, without the hidden ones.
      aliases: {name: its other names}, without hidden ones and those that turn the drawing.
      categories: {name: titles of its categories}.
      suffixes: the set's own style words at the end of a name, the longest first.
      prefixes: those at its beginning.
      hidden: names of icons that are hidden.
      turned: names of aliases that turn the drawing.
      code_points: {code points joined by hyphens, hexadecimal: name of an icon or alias}.
      digest: of the file.
    """

    name: str
    info: dict
    icons: dict[str, dict]
    aliases: dict[str, list[str]]
    categories: dict[str, list[str]]
    suffixes: tuple[str, ...]
    prefixes: tuple[str, ...]
    hidden: list[str]
    turned: list[str]
    code_points: dict[str, str]
    digest: str

    @property
    def category(self) -> str:
        """Such as "Emoji" or "UI 24px"; "" where there is none."""
        return self.info.get("category") or ""

    @property
    def licence(self) -> str:
        """SPDX identifier, or the title where there is none."""
        licence = self.info.get("license", {})
        return licence.get("spdx") or licence.get("title", "")

    @property
    def author(self) -> str:
        """Name of the author."""
        return self.info.get("author", {}).get("name", "")

    @property
    def forbids_use(self) -> bool:
        """Whether the licence forbids commerce or derivatives."""
        licence = self.info.get("license", {})
        return bool(_FORBIDDING.search(f"{licence.get('spdx', '')} {licence.get('title', '')}".replace("-", " ")))


def find_package(folder: pathlib.Path) -> pathlib.Path | None:
    """The package in a folder, or below it as npm places it; None if there is none."""
    for path in ("", "package", "@iconify/json", "node_modules/@iconify/json"):
        if (folder / path / COLLECTIONS).is_file() and (folder / path / "json").is_dir():
            return folder / path
    return None


def package_version(package: pathlib.Path) -> str:
    """Such as "2.2.535"; "unknown" where package.json is missing."""
    try:
        return str(json.loads((package / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return "unknown"


def read_sets(package: pathlib.Path) -> tuple[list[IconSet], list[str]]:
    """Reads all sets.

    Returns:
      The sets that `collections.json` lists, in its order, and the names of the files that it does not list.

    Raises:
      UserError: a file is missing or malformed.
    """
    listed = _read(package / COLLECTIONS)
    files = {file.stem: file for file in sorted((package / "json").glob("*.json"))}
    missing = [name for name in listed if name not in files]
    if missing:
        raise UserError(f"{package}/json has no file for {', '.join(missing)}: unpack the package again")
    return [read_set(name, files[name], info) for name, info in listed.items()], sorted(set(files) - set(listed))


def read_set(name: str, file: pathlib.Path, info: dict) -> IconSet:
    """Reads one set.

    Args:
      name: of the set.
      file: its JSON.
      info: its entry in collections.json.

    Raises:
      UserError: the file is malformed.
    """
    data = _read(file)
    defaults = {"left": 0, "top": 0, "width": _DEFAULT_SIDE, "height": _DEFAULT_SIDE}
    defaults |= {key: data[key] for key in defaults if key in data}
    try:
        icons = {icon: defaults | entry for icon, entry in data["icons"].items()}
        if not all(isinstance(entry["body"], str) for entry in icons.values()):
            raise TypeError
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{file} is not a set of icons: unpack the package again") from None
    hidden = [icon for icon, entry in icons.items() if entry.get("hidden")]
    aliases, turned = _aliases(data, icons)
    categories = collections.defaultdict(list)
    for title, members in data.get("categories", {}).items():
        for member in members:
            categories[member].append(title)
    return IconSet(
        name=name,
        info=info,
        icons={icon: entry for icon, entry in icons.items() if not entry.get("hidden")},
        aliases=aliases,
        categories=categories,
        suffixes=_styles(data.get("suffixes")),
        prefixes=_styles(data.get("prefixes")),
        hidden=hidden,
        turned=turned,
        code_points=data.get("chars", {}),
        digest=hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
    )


def _aliases(data: dict, icons: dict) -> tuple[dict[str, list[str]], list[str]]:
    """{icon: its other names}, and the names of aliases that are another drawing since they turn it."""
    entries, found, turned = data.get("aliases", {}), collections.defaultdict(list), []
    for alias in entries:
        name, entry, path = alias, entries[alias], {alias}
        changed = hidden = False
        while entry is not None:
            changed |= any(entry.get(key) for key in _TRANSFORMS)
            hidden |= bool(entry.get("hidden"))
            name = entry["parent"]
            # A parent may be an alias itself.
            entry = entries.get(name) if name not in path else None
            path.add(name)
        if changed:
            turned.append(alias)
        elif name in icons and not hidden:
            found[name].append(alias)
    return found, turned


def _styles(table: dict | None) -> tuple[str, ...]:
    return tuple(sorted((key for key in table or {} if key), key=len, reverse=True))


def _read(file: pathlib.Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(file)} ({error.strerror}): unpack the package again") from None
    except ValueError:
        raise UserError(f"{os.fspath(file)} is not JSON: unpack the package again") from None
    if not isinstance(value, dict):
        raise UserError(f"{os.fspath(file)} is not a JSON object: unpack the package again")
    return value


def svg(entry: dict, size: int, color: str = "#000") -> str:
    """An icon as a square SVG of `size` pixels; where its box is not square, it is centred.

    Args:
      entry: of `IconSet.icons`.
      size: side in pixels.
      color: what `currentColor` stands for.
    """
    left, top, width, height = (entry[key] for key in ("left", "top", "width", "height"))
    side = max(width, height)
    body = settled(entry["body"]) if is_animated(entry) else entry["body"]
    if width != height:
        # An inner box, which clips: what lies outside an icon's own box must not show in the margins.
        box = f'x="{left}" y="{top}" width="{width}" height="{height}"'
        body = f'<svg {box} viewBox="{left} {top} {width} {height}">{body}</svg>'
    square = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    return f'<svg {_NAMESPACES} width="{size}" height="{size}" viewBox="{square}" color="{color}">{body}</svg>'


def is_animated(entry: dict) -> bool:
    """Whether an icon has animations that leave it changed: drawn at their beginning, parts of it are missing."""
    return 'fill="freeze"' in entry["body"]


def settled(body: str) -> str:
    """An animated icon as it looks at the end: attributes have the last values of animations that freeze.

    Args:
      body: of an icon; returned unchanged where it is no XML.
    """
    try:
        root = ElementTree.fromstring(f"<svg {_NAMESPACES}>{body}</svg>")
    except ElementTree.ParseError:
        return body
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.rpartition("}")[2] in ("animate", "set") and child.get("fill") == "freeze":
                values = child.get("values") or child.get("to") or ""
                name = child.get("attributeName")
                if name and values:
                    element.set(name, values.rpartition(";")[2].strip())
    return "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
