"""The exceptions for user errors and for diverged runs, and what to say of a disk that does not do its part."""

import errno
import os

DISK_REMEDIES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.EFBIG: "use a disk that takes files of this size",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "make it accessible, or name another",
    errno.EPERM: "make it accessible, or name another",
    errno.ENOENT: "restore it, or name another",
    errno.EIO: "check the disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "name another: it is a link to itself",
    errno.ENOTDIR: "name another: a part of it is no folder",
    errno.EEXIST: "name another: it is not a folder",
    errno.EISDIR: "name a file: it is a folder",
}
"""What a user can do, by the number of the operating system's error; with another number, the fault may be ours."""


class UserError(Exception):
    """An error the user can fix; the message names the cause and the remedy.

    The command line prints it on one line, without a stack trace, and exits with code 2. Library callers catch it like
    any other exception.
    """


class DivergedError(UserError):
    """The loss of a run is no longer finite; with the same config and seed the run always diverges."""


def disk_error(error: OSError) -> UserError | None:
    """The user error that an error of the operating system amounts to; None where the fault may be this program's."""
    if error.errno not in DISK_REMEDIES:
        return None
    file = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return UserError(f"{file}{os.strerror(error.errno)}; {DISK_REMEDIES[error.errno]}, then start again")


def memory_error(error: Exception) -> UserError | None:
    """The user error that an exhausted memory amounts to, of a device or of the host; None for any other error."""
    text = " ".join(str(error).split())
    exhausted = type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in text
    if not isinstance(error, MemoryError) and not (exhausted and "memory" in text.lower()):
        return None
    found = text.removeprefix("RESOURCE_EXHAUSTED: ")[:120] or "no memory is left"
    return UserError(
        f"out of memory ({found}); a training needs less with --config.train.microbatches=8, --config.model.remat=True "
        "or a smaller train.batch_size, and cbalign plan says how much; anything else needs a smaller model or input, "
        "or a device with more memory"
    )
