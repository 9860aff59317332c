"""A picture that a command writes: its flag is checked before work starts, and it appears whole or not at all."""


def picture_file(flag: str, path: str):
    """The file that `flag` names, local or in a bucket.

    Raises:
      UserError: it is no .png, or a folder.
    """
    from etils import epath

    from cbalign.errors import UserError

    file = epath.Path(path)
    if file.suffix.lower() != ".png" or file.is_dir():
        raise UserError(f"{flag}={path} must be a file that ends in .png")
    return file


def write_picture(flag: str, file, png: bytes) -> None:
    """Writes it; its folder is created if needed.

    Raises:
      UserError: it cannot be written.
    """
    from cbalign.errors import UserError
    from cbalign.storage import write_atomically

    try:
        write_atomically(file, png)
    except OSError as error:
        raise UserError(f"{flag}={file} cannot be written ({error}); name another file") from error
