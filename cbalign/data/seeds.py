"""What each number that seeds are derived with is for.

Everything random in the pipeline is a function of (seed, epoch) or (seed, sample number). `views.derive_seed` makes a
seed of its own for each purpose by adding its number, so that two purposes never share their draws. Changing a number
changes what a run sees.
"""

import enum


class Purpose(enum.IntEnum):
    """Of a seed derived from (seed, epoch), (seed, number of a pass) or (seed, sample number)."""

    EPOCH_ORDER = 1
    """The shuffle of an epoch, from (seed, epoch)."""
    CAPTION = 2
    """Which caption of a record is shown."""
    FIRST_VIEW = 16
    """The view of the (first) image. A view also uses the numbers of `ViewPurpose` above its own."""
    SECOND_VIEW = 32
    """The second view of that image, for the teacher."""
    SECOND_IMAGE = 48
    """The view of the second image of a record."""
    SECOND_IMAGE_SECOND_VIEW = 64
    """The second view of the second image."""
    MIXTURE_PASS = 4096
    """The shuffle of a pass over source p of a mixture, from (seed, number of the pass); uses MIXTURE_PASS + p."""


class ViewPurpose(enum.IntEnum):
    """Of a seed within a view; added to the number of the view."""

    CROP = 1
    FLIP = 2
    DISTORT = 3
    COLOR = 4


IMAGE_NAMES = ("image", "image_second")
"""Entries of a batch that hold the first and the second image of its records."""

VIEWS = (
    {"image": Purpose.FIRST_VIEW, "image_teacher": Purpose.SECOND_VIEW},
    {"image_second": Purpose.SECOND_IMAGE, "image_second_teacher": Purpose.SECOND_IMAGE_SECOND_VIEW},
)
"""For each image of a record: the entries of a training batch that show it, and the purpose of their seeds."""
