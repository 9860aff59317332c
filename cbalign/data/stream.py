"""Iterates over a tf.data pipeline that calls Python functions, and can be closed at any time without a deadlock.

`tf.numpy_function` needs Python's global lock. Freeing an iterator waits for its pending calls, and Python frees it
while holding the lock: an iterator abandoned early, such as at the end of a run, would deadlock. Closing a stream
therefore first lets all pending work finish.
"""

import atexit
import contextlib
import weakref
from collections.abc import Callable, Iterator

import tensorflow as tf

from cbalign.data.augment.views import as_written

_LIVE = weakref.WeakSet()
# Errors tolerated from pending elements while a stream is drained.
_LAST_ERRORS = 1000


def options(threads: int | None) -> tf.data.Options:
    """tf.data options with deterministic order; `threads=None` lets TensorFlow choose the number of threads."""
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
      source: data set of cheap elements, such as indices, from which all others are computed.
      build: data set -> data set of the elements to yield.
      threads: see `options`.

    Returns:
      A generator of numpy arrays in the structure of the elements. Closing or dropping it first lets pending work
      finish; so does the end of the program.
    """
    with tf.device("CPU:0"):
        running = tf.Variable(True, trainable=False)
        dataset = build(source.take_while(as_written(lambda *_: running.read_value())))
        stream = _until_closed(dataset.with_options(options(threads)).as_numpy_iterator(), running)
    _LIVE.add(stream)
    return stream


def _until_closed(iterator, running):
    try:
        yield from iterator
    finally:
        running.assign(False)
        for _ in range(_LAST_ERRORS):
            with contextlib.suppress(tf.errors.OpError):
                for _ in iterator:
                    pass
                break


@atexit.register
def _close_all():
    for stream in list(_LIVE):
        stream.close()
