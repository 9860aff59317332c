"""The order of records in a run: a shuffle of each epoch, and mixtures of sources.

What is shuffled are the numbers of records, or of pairs of an image and a text (`Records.epoch_over`); "records" below
stands for either. An epoch takes round(weight * n) of the n records of each source. A whole weight w takes each record
w times. With any other weight the source's own shuffled passes, one after another, are cut into epochs: with weight 0.5
the second epoch takes the half that the first left, and the next two epochs share a new shuffle. The records of all
sources are then shuffled together. The order is a function of (seed, epoch).
"""

import dataclasses
import math

import tensorflow as tf

from cbalign.data.augment import views
from cbalign.data.seeds import Purpose

# Distance between two probes as a share of the records: neighbours may lie in the same damaged file.
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclasses.dataclass(frozen=True)
class Part:
    """The records of one source among those of a mixture.

    Attributes:
      first: index of its first record.
      count: number of its records.
      per_epoch: number of records an epoch takes, including repetitions.
    """

    first: int
    count: int
    per_epoch: int

    @classmethod
    def weighted(cls, first: int, count: int, weight: float) -> "Part":
        """The part of which an epoch takes `weight * count` records, at least one."""
        return cls(first, count, max(1, round(weight * count)))

    @property
    def stride(self) -> int:
        """Distance from one probe to the next: coprime to `count`, so that no record is probed twice."""
        step = max(1, round(_GOLDEN * self.count))
        while math.gcd(step, self.count) > 1:
            step += 1
        return step % self.count if self.count > 1 else 0


def shuffled(position, order, count: int):
    """Records at positions int64 [b] of the epoch with key `order` int64 [2]: a random permutation of [0, count)."""
    return _permuted(position, _hashed_key(order, Purpose.EPOCH_ORDER), count)


def _hashed_key(order, purpose: int):
    # With consecutive keys the op gives only 256 different orders, and its default of 4 rounds leaves neighbours
    # correlated; a hashed key and 16 rounds pass tests of uniformity.
    return tf.random.stateless_uniform([3], views.derive_seed(order, purpose), minval=None, maxval=None, dtype=tf.int32)


def _permuted(position, key, count):
    last = tf.cast(count, tf.int64) - 1
    return tf.raw_ops.RandomIndexShuffle(index=position, seed=key, max_index=last, rounds=16)


def records_at(position, epoch, *, seed: int, parts: tuple[Part, ...]):
    """The records at positions of an epoch.

    Args:
      position: int64 [b], each in [0, sum of per_epoch).
      epoch: int64 scalar.
      seed: a number below 2^31.
      parts: the sources, at least one.

    Returns:
      Record indices, int64 [b].
    """
    seed = tf.constant(seed, tf.int64)
    place = shuffled(position, tf.stack([seed, epoch]), sum(part.per_epoch for part in parts))
    if len(parts) == 1 and parts[0].per_epoch == parts[0].count:
        return place
    starts = _starts(part.per_epoch for part in parts)
    source = tf.searchsorted(starts, place, side="right") - 1
    first, count, per_epoch = (
        tf.gather(tf.constant([getattr(part, field) for part in parts], tf.int64), source)
        for field in ("first", "count", "per_epoch")
    )
    # The place in the source's endless sequence of passes.
    drawn = epoch * per_epoch + place - tf.gather(starts, source)
    turn, within = drawn // count, drawn % count
    keys, oldest = _pass_keys(epoch, seed, parts)
    key = tf.gather_nd(keys, tf.stack([tf.cast(source, tf.int64), turn - tf.gather(oldest, source)], axis=1))
    whole = tf.gather(tf.constant([part.per_epoch % part.count == 0 for part in parts]), source)
    return first + tf.where(whole, within, _permuted(within, key, count))


def _starts(sizes):
    """Start offsets of consecutive pieces of the given sizes: int64."""
    return tf.cumsum(tf.constant(list(sizes), tf.int64), exclusive=True)


def _pass_keys(epoch, seed, parts):
    """Keys int32 [parts, k, 3] of the passes over each source that an epoch overlaps, and int64 [parts] the first."""
    most = max(-(-part.per_epoch // part.count) + 1 for part in parts)
    oldest = [epoch * part.per_epoch // part.count for part in parts]
    keys = [
        [_hashed_key(tf.stack([seed, turn + later]), Purpose.MIXTURE_PASS + number) for later in range(most)]
        for number, turn in enumerate(oldest)
    ]
    return tf.stack([tf.stack(row) for row in keys]), tf.stack(oldest)


def probe(record, attempt, parts: tuple[Part, ...]):
    """The record to use for `record` (int64 scalar) at attempt 0, 1, 2, ...; attempt 0 is the record itself.

    It comes from the same source. Each record has its own fixed sequence of them, spread over the whole source.
    """
    source = tf.searchsorted(_starts(part.count for part in parts), record[tf.newaxis], side="right")[0] - 1
    first, count, stride = (
        tf.gather(tf.constant([getattr(part, field) for part in parts], tf.int64), source)
        for field in ("first", "count", "stride")
    )
    return first + (record - first + attempt * stride) % count
