"""The peer of the input pipeline: the same views made by PIL, read by PyTorch's DataLoader in one process a core."""

import io
import math
import random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from cbalign.data.augment import CROP_TRIES, OPERATIONS, operation_amounts
from cbalign.errors import UserError

_GREY = (128, 128, 128)


def random_resized_crop(picture, size: int, scale, ratio=(3 / 4, 4 / 3)):
    """torchvision's RandomResizedCrop with bicubic interpolation, on a PIL picture."""
    width, height = picture.size
    for _ in range(CROP_TRIES):
        area = width * height * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            break
    else:
        w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
        left, top = (width - w) // 2, (height - h) // 2
    return picture.resize((size, size), Image.BICUBIC, box=(left, top, left + w, top + h))


def _affine(picture, *coefficients):
    return picture.transform(picture.size, Image.AFFINE, coefficients, Image.BILINEAR, fillcolor=_GREY)


PIL_OPERATIONS = {
    "Identity": lambda picture, _: picture,
    "AutoContrast": lambda picture, _: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, _: ImageOps.equalize(picture),
    "Brightness": lambda picture, amount: ImageEnhance.Brightness(picture).enhance(amount),
    "Sharpness": lambda picture, amount: ImageEnhance.Sharpness(picture).enhance(amount),
    "ShearX": lambda picture, amount: _affine(picture, 1, -amount, 0, 0, 1, 0),
    "ShearY": lambda picture, amount: _affine(picture, 1, 0, 0, -amount, 1, 0),
    "TranslateX": lambda picture, amount: _affine(picture, 1, 0, amount, 0, 1, 0),
    "TranslateY": lambda picture, amount: _affine(picture, 1, 0, 0, 0, 1, amount),
    "Rotate": lambda picture, amount: picture.rotate(amount, Image.BILINEAR, fillcolor=_GREY),
}


def rand_augment(picture, *, num_ops: int = 2, magnitude: float = 7, probability: float = 0.5):
    """The ten operations of `augment.OPERATIONS`, on a PIL picture."""
    amounts = operation_amounts(magnitude)
    for name in random.choices(tuple(OPERATIONS), k=num_ops):
        if random.random() < probability:
            amount, signed = amounts.get(name, (0.0, False))
            sign = -1 if signed and random.random() < 0.5 else 1
            picture = PIL_OPERATIONS[name](picture, sign * amount)
    return picture


class Views:
    """A map-style data set of PyTorch: row i is picture i as tuple of views, each uint8 [size, size, 3]."""

    def __init__(self, pictures: list[bytes], *, size: int, scale, flip: bool, rand_augment: bool, views: int, length: int):
        self.pictures, self.length, self.views = pictures, length, views
        self.size, self.scale, self.flip, self.distort = size, scale, flip, rand_augment

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        with Image.open(io.BytesIO(self.pictures[i % len(self.pictures)])) as file:
            picture = file.convert("RGB")
        return tuple(np.asarray(self._view(picture)) for _ in range(self.views))

    def _view(self, picture):
        view = random_resized_crop(picture, self.size, self.scale)
        if self.flip and random.random() < 0.5:
            view = view.transpose(Image.FLIP_LEFT_RIGHT)
        return rand_augment(view) if self.distort else view


def loader(pictures: list[bytes], *, batch_size: int, workers: int, length: int, **options):
    """PyTorch's DataLoader over `Views`, as the field runs it: shuffled, one process a worker, ragged tails dropped.

    Raises:
      UserError: PyTorch is not installed.
    """
    try:
        from torch.utils.data import DataLoader
    except ImportError as error:
        raise UserError("the pipeline's peer is PyTorch's DataLoader: pip install torch, or give --no-peer") from error
    return DataLoader(Views(pictures, length=length, **options), batch_size=batch_size, shuffle=True,
                      num_workers=workers, drop_last=True)
