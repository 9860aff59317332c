"""The columns of a caption file: which names the image, and which holds the caption."""

from __future__ import annotations

from cbalign.errors import UserError

IMAGE_COLUMNS = (
    "image",
    "file",
    "filename",
    "file_name",
    "filepath",
    "path",
    "image_path",
    "image_name",
    "image_file",
    "img",
    "image_id",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "sentence", "sentences", "comment", "description", "raw")
_NAMED = 12


def has_columns(names: list[str]) -> bool:
    """Whether an image and a caption column are among the names."""
    lower = {name.strip().lower() for name in names if isinstance(name, str)}
    return not lower.isdisjoint(IMAGE_COLUMNS) and not lower.isdisjoint(CAPTION_COLUMNS)


def find_columns(names: list[str], where: str) -> tuple[str, str]:
    """Finds the image column and the caption column; names earlier in the lists above take precedence.

    Raises:
      UserError: one is not there, or is there twice.
    """
    lower: dict[str, list[str]] = {}
    for name in names:
        lower.setdefault(str(name).strip().lower(), []).append(name)
    image = next((name for name in IMAGE_COLUMNS if name in lower), None)
    caption = next((name for name in CAPTION_COLUMNS if name in lower), None)
    if image is None or caption is None:
        lacking = "image (such as image or file)" if image is None else "caption (such as caption or text)"
        raise UserError(f"{where}: no column for the {lacking}; found {_listed(names)}. Rename a column")
    for chosen in (image, caption):
        if len(lower[chosen]) > 1:
            raise UserError(
                f"{where}: the column {chosen} is there {len(lower[chosen])} times; rename the one that is not meant, "
                "or give each caption a row of its own"
            )
    return lower[image][0], lower[caption][0]


def _listed(names: list[str]) -> str:
    """Names for a message; a file that is no table may seem to have thousands, or one of a million characters."""
    shown = ", ".join(repr(str(name)[:40]) for name in names[:_NAMED]) or "nothing"
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def note_columns(notes: list[str], names: list[str], image: str, caption: str) -> None:
    """Tells which columns were taken, where there was a choice or something that is not used."""
    others = [str(name).strip().lower() for name in names if name not in (image, caption)]
    used = folder_column(names, image)
    known = {*IMAGE_COLUMNS, *CAPTION_COLUMNS} - {"image_id", str(used).strip().lower()}
    also = [name for name in others if name in known]
    if also:
        notes.append(f"images are taken from the column {image}, captions from {caption}; not used: {', '.join(also)}")
    if "split" in others:
        notes.append("the column split is not used: splits are drawn anew")


def folder_column(names: list[str], image: str) -> str | None:
    """Karpathy's `filepath`, the folder of his `filename`."""
    lower = {str(name).strip().lower(): name for name in names}
    return lower.get("filepath") if image.strip().lower() in ("filename", "file_name") else None
