"""What TensorFlow, TFDS and the operating system raise where a data set cannot be written, as one line."""

import os

import tensorflow as tf

DISK_ERRORS = (OSError, tf.errors.OpError)


def cannot_write(folder: os.PathLike | str, error: Exception, flag: str) -> str:
    """The line, with its remedy.

    Args:
      folder: that is written to.
      error: one of `DISK_ERRORS`.
      flag: names another folder.
    """
    reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
    return f"cannot write to {os.fspath(folder)} ({reason}): free up space, or name another {flag}"
