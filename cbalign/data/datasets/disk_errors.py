"""What TensorFlow, TFDS and the operating system raise where a data set cannot be written, as one line."""

import os

import tensorflow as tf

DISK_ERRORS = (OSError, tf.errors.OpError)


def disk_cause(error: BaseException | None) -> Exception | None:
    """The one of `DISK_ERRORS` that an error is or was raised from, as TFDS does; None where there is none."""
    while error is not None and not isinstance(error, DISK_ERRORS):
        error = error.__cause__
    return error


def cannot_write(folder: os.PathLike | str, error: Exception, flag: str) -> str:
    """The line, with its remedy.

    Args:
      folder: that is written to.
      error: one of `DISK_ERRORS`.
      flag: names another folder.
    """
    reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
    return f"cannot write to {os.fspath(folder)} ({reason}): free up space, or name another {flag}"
