"""Finds the image files that a caption file or an annotation names."""

from __future__ import annotations

import collections
import os
import pathlib
import unicodedata
import urllib.parse
from collections.abc import Container, Iterable

from cbalign.data.file_tree import NEEDS_DECODER, describe, other_files, readable_suffixes, walk
from cbalign.errors import UserError

MISSING, AMBIGUOUS = "missing", "ambiguous: several files have that name"
BY_TAIL = "found by the end of their paths"
IN_SUBFOLDER = "named without their folder and found in sub-folders"
BY_NAME = "found by their names alone, in other folders than written"
OTHER_FORM = "found in another Unicode form (NFC, NFD) than written"
OTHER_CASE = "found in other upper and lower case than written"
DECODED = "found with %-codes decoded"
NO_SUFFIX = "written without the suffix of their file"


class ImageFinder:
    """Finds image files below a folder, even if the caption file refers to them by paths of another machine.

    Attributes:
      folder: the folder, absolute.
      guesses: {how a file was found, if not exactly as written: the names as written}.
    """

    def __init__(self, folder: str | os.PathLike):
        """Initializes with a folder, which is listed only when a path is not found directly.

        Raises:
          UserError: the folder does not exist.
        """
        self.folder = pathlib.Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"the image folder {folder} does not exist")
        self.guesses: dict[str, list[str]] = collections.defaultdict(list)
        self._tree: _Tree | None = None
        self._parents: set[str] = set()

    def learn(self, names: Iterable[str]) -> None:
        """Takes all the names that will be looked for.

        Where one of them names a folder that exists, names mean what they say: none is looked for in another folder.
        """
        self._parents.update(_slashes(name).rpartition("/")[0].rpartition("/")[2] for name in names)
        self._parents -= {"", "."}

    def find(self, written: str) -> pathlib.Path | None:
        """The file that a name refers to, or None; see `locate`."""
        return self.locate(written)[0]

    def locate(self, written: str) -> tuple[pathlib.Path | None, str]:
        """The file that a name refers to, and how it was found, "" for exactly as written; or None, and why not.

        First the path itself is tried, relative to the folder unless absolute. Otherwise the file below the folder that
        shares the most trailing components with it, at least the name, with or without suffix, if it is unique; names
        are compared exactly, then by Unicode's canonical form, then ignoring case. A path whose own folder exists, or
        that lies in a folder of another name than an existing one, is not replaced by a file of another folder.
        """
        if not written or "\0" in written:
            return None, MISSING
        if exact := self._exactly(written):
            return exact, ""
        decoded = urllib.parse.unquote(written)
        if decoded != written and (exact := self._exactly(decoded)):
            return self._guess(exact, DECODED, written)
        for name, decoding in ((written, ""), (decoded, DECODED)):
            if name == written and decoding:
                continue
            found, how = self._similar(name)
            if found or how == AMBIGUOUS:
                return self._guess(found, how or decoding, written) if found else (None, how)
        return None, MISSING

    def notes(self, *, of_course: Container[str] = ()) -> list[str]:
        """Lines that tell what was not found exactly as written; `of_course`: ways of finding that need no word."""
        return [
            f"{len(names):,} images {how}, such as {names[0]!r}"
            for how, names in sorted(self.guesses.items())
            if how not in of_course
        ]

    def leftovers(self, used: Iterable[pathlib.Path]) -> list[str]:
        """Lines that tell which images of the folder are not among those used, and what else lies there."""
        tree = self._listed()
        named = {os.fspath(path) for path in used}
        rest = [path for path in tree.images if os.path.join(self.folder, path) not in named]
        lines = [f"{len(rest):,} images in {self.folder} have no caption, such as {rest[0]}"] if rest else []
        return lines + ([f"not read in {self.folder}: {describe(tree.left_out)}"] if tree.left_out else [])

    def _guess(self, found: pathlib.Path, how: str, written: str) -> tuple[pathlib.Path, str]:
        if how:
            self.guesses[how].append(written)
        return found, how

    def _exactly(self, written: str) -> pathlib.Path | None:
        for name in dict.fromkeys([written, written.removeprefix("file://"), written.replace("\\", "/")]):
            direct = os.path.normpath(os.path.join(self.folder, name))
            if os.path.isfile(direct):
                return pathlib.Path(direct)
        return None

    def _similar(self, written: str) -> tuple[pathlib.Path | None, str]:
        parts = [part for part in _slashes(written).split("/") if part not in ("", ".")]
        if not parts:
            return None, MISSING
        candidates = self._listed().by_name.get(_folded(parts[-1]), [])
        # Compared exactly first, then more and more loosely.
        for form, how in ((str, ""), (_canonical, OTHER_FORM), (_folded, OTHER_CASE)):
            own = [form(part) for part in parts]
            scored = [
                (_common_tail(own[:-1], [form(part) for part in file.parts[:-1]]), file)
                for file in candidates
                if form(file.name) == own[-1] or form(file.stem) == own[-1]
            ]
            # A whole name is better than one that lacks its suffix.
            scored = [(score, file) for score, file in scored if form(file.name) == own[-1]] or scored
            if scored:
                return self._best(scored, own, form, how, _slashes(written).startswith("/"))
        return None, MISSING

    def _best(self, scored: list, own: list[str], form, how: str, absolute: bool) -> tuple[pathlib.Path | None, str]:
        """The candidate with the longest common tail, unless the path names a folder that exists and lacks the file."""
        best = max(score for score, _ in scored)
        files, folders = [file for score, file in scored if score == best], own[:-1]
        # Whether a file lies exactly where the path, or its end, says.
        exact = [file for file in files if len(file.parts) - 1 == best]
        if exact:
            files = exact
        tree = self._listed()
        # The file that the path means would be in one of these folders, and is not.
        lengths = range(max(best + bool(exact), 1), len(folders) + 1)
        loose = [_folded(name) for name in folders]
        lacking = any("/".join(loose[-length:]) in tree.folders for length in lengths)
        other = best < len(loose) and loose[-1 - best] in tree.folder_names
        # An absolute path may lie in the image folder of another machine itself.
        at_root = bool(exact) and (absolute or not folders or own[0].endswith(":"))
        if lacking or other or (not best and not at_root and self._folders_named()):
            return None, MISSING
        if len(files) > 1:
            return None, AMBIGUOUS
        if not how and best < max(len(files[0].parts) - 1, len(folders)):
            how = BY_TAIL if best else BY_NAME if folders else IN_SUBFOLDER
        elif not how and form(files[0].name) != own[-1]:
            how = NO_SUFFIX
        return self.folder / files[0], how

    def _folders_named(self) -> bool:
        return not self._listed().folder_names.isdisjoint(map(_folded, self._parents))

    def _listed(self) -> _Tree:
        if self._tree is None:
            self._tree = _Tree(self.folder)
        return self._tree


class _Tree:
    """What lies below a folder.

    Attributes:
      by_name: {name or stem, folded: files of that name, whatever its Unicode form and case}.
      folders, folder_names: the paths of all folders, relative to it, and their names, folded.
      images: the image files, relative to the folder.
      left_out: {kind: how many} of the other files.
    """

    def __init__(self, root: pathlib.Path):
        self.by_name: dict[str, list[pathlib.PurePath]] = collections.defaultdict(list)
        self.images: list[pathlib.PurePath] = []
        self.left_out: collections.Counter = collections.Counter()
        self.folders: set[str] = set()
        self.folder_names: set[str] = set()
        for folder, files in walk(root, self.left_out):
            relative = folder.relative_to(root)
            if relative.parts:
                self.folders.add(_folded(relative.as_posix()))
                self.folder_names.add(_folded(relative.name))
            for name, _ in files:
                self._add(pathlib.PurePath(relative, name))

    def _add(self, path: pathlib.PurePath) -> None:
        suffix = path.suffix.lower()
        readable = suffix in readable_suffixes()
        image = readable or suffix in NEEDS_DECODER
        if readable:
            self.images.append(path)
        else:
            self.left_out[other_files(path.name)] += 1
        # What lies beside an image, such as a text of the same stem, is not meant by a name without suffix.
        for key in {_folded(path.name), _folded(path.stem)} if image else {_folded(path.name)}:
            self.by_name[key].append(path)


def _slashes(written: str) -> str:
    return written.removeprefix("file://").replace("\\", "/").removeprefix("./")


def _canonical(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _common_tail(left, right) -> int:
    length = 0
    for one, other in zip(reversed(left), reversed(right)):
        if one != other:
            break
        length += 1
    return length
