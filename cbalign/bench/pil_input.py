"""The input pipeline's peer: the same views made with PIL in PyTorch's DataLoader, one worker process per core."""

import io
import math
import random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from cbalign.data.augment.views import CROP_TRIES, OPERATIONS, operation_amounts
from cbalign.errors import UserError

_GREY = (128, 128, 128)


def random_resized_crop(image, size: int, scale, ratio=(3 / 4, 4 / 3)):
    """Torchvision's RandomResizedCrop with bicubic interpolation, on a PIL image."""
    width, height = image.size
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
    return image.resize((size, size), Image.BICUBIC, box=(left, top, left + w, top + h))


def _affine(image, *coefficients):
    return image.transform(image.size, Image.AFFINE, coefficients, Image.BILINEAR, fillcolor=_GREY)


PIL_OPERATIONS = {
    "Identity": lambda image, _: image,
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(amount),
    "Sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(amount),
    "ShearX": lambda image, amount: _affine(image, 1, -amount, 0, 0, 1, 0),
    "ShearY": lambda image, amount: _affine(image, 1, 0, 0, -amount, 1, 0),
    "TranslateX": lambda image, amount: _affine(image, 1, 0, amount, 0, 1, 0),
    "TranslateY": lambda image, amount: _affine(image, 1, 0, 0, 0, 1, amount),
    "Rotate": lambda image, amount: image.rotate(amount, Image.BILINEAR, fillcolor=_GREY),
}


def rand_augment(image, *, num_ops: int = 2, magnitude: float = 7, probability: float = 0.5):
    """RandAugment on a PIL image, with the ten operations of `augment.views.OPERATIONS`."""
    amounts = operation_amounts(magnitude)
    for name in random.choices(tuple(OPERATIONS), k=num_ops):
        if random.random() < probability:
            amount, signed = amounts.get(name, (0.0, False))
            sign = -1 if signed and random.random() < 0.5 else 1
            image = PIL_OPERATIONS[name](image, sign * amount)
    return image


class Views:
    """Map-style PyTorch data set: item i is a tuple of views of image i, each uint8 [size, size, 3]."""

    def __init__(
        self, images: list[bytes], *, size: int, scale, flip: bool, rand_augment: bool, views: int, length: int
    ):
        self.images, self.length, self.views = images, length, views
        self.size, self.scale, self.flip, self.distort = size, scale, flip, rand_augment

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        with Image.open(io.BytesIO(self.images[i % len(self.images)])) as file:
            image = file.convert("RGB")
        return tuple(np.asarray(self._view(image)) for _ in range(self.views))

    def _view(self, image):
        view = random_resized_crop(image, self.size, self.scale)
        if self.flip and random.random() < 0.5:
            view = view.transpose(Image.FLIP_LEFT_RIGHT)
        return rand_augment(view) if self.distort else view


def loader(images: list[bytes], *, batch_size: int, workers: int, length: int, **options):
    """PyTorch's DataLoader over `Views` with the usual settings: shuffled, in worker processes, full batches only.

    Raises:
      UserError: PyTorch is not installed.
    """
    try:
        from torch.utils.data import DataLoader
    except ImportError as error:
        raise UserError("the comparison needs PyTorch's DataLoader: pip install torch, or add --no-peer") from error
    return DataLoader(
        Views(images, length=length, **options),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
    )
