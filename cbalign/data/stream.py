"""Iterating over a data set whose functions call Python, and leaving it at any moment.

Such a call (`tf.numpy_function`) waits for Python's lock. An iterator that is freed waits for the calls under way, and
Python frees it with the lock held: one that is left early, at the end of a run say, would wait for ever. So a stream that
is closed first lets everything come to its end.
"""

import atexit
import contextlib
import weakref
from collections.abc import Callable, Iterator

import tensorflow as tf

from cbalign.data.augment.views import as_written

_LIVE = weakref.WeakSet()
# Errors that elements under way may still end in while a stream is emptied.
_LAST_ERRORS = 1000


def options(threads: int | None) -> tf.data.Options:
    """Options of a stream whose order is fixed; None leaves the number of threads to tensorflow."""
    chosen = tf.data.Options()
    chosen.deterministic = True
    chosen.threading.max_intra_op_parallelism = 1
    if threads:
        chosen.threading.private_threadpool_size = threads
        chosen.autotune.enabled = False
    return chosen


def iterate(source: tf.data.Dataset, build: Callable, *, threads: int | None = None) -> Iterator:
    """Iterates over `build(source)`, in order.

    Args:
      source: cheap elements, as numbers, from which everything is made.
      build: data set → data set of what is yielded.
      threads: see `options`.

    Returns:
      A generator of numpy arrays in the structure of the elements. Closing it, or dropping it, lets what is under way
      end first; so does the end of the program.
    """
    with tf.device("CPU:0"):
        going = tf.Variable(True, trainable=False)
        dataset = build(source.take_while(as_written(lambda *_: going.read_value())))
        stream = _until_closed(dataset.with_options(options(threads)).as_numpy_iterator(), going)
    _LIVE.add(stream)
    return stream


def _until_closed(iterator, going):
    try:
        yield from iterator
    finally:
        going.assign(False)
        for _ in range(_LAST_ERRORS):
            with contextlib.suppress(tf.errors.OpError):
                for _ in iterator:
                    pass
                break


@atexit.register
def _close_all():
    for stream in list(_LIVE):
        stream.close()
