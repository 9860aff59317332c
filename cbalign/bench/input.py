"""Rate of the input pipeline on JPEGs of COCO's size, beside PIL under PyTorch's DataLoader on the same cores."""

import io
import os
import time

import numpy as np
from PIL import Image

from cbalign.bench import pil_input
from cbalign.data.pipeline import train_batches
from cbalign.data.records import Records
from cbalign.plan.chips import CHIPS

# COCO's train2014: 82,783 images, most of 640 x 480 pixels, in 13.5 GB.
_WIDTH, _HEIGHT, _BYTES = 640, 480, 163_000
_IMAGES = 64
_WARM_UP = 3
"""Batches before the clock starts: processes begin, buffers fill."""
_V4_CHIPS_PER_HOST = 4


def _noise_image(rng) -> Image.Image:
    """An image whose amplitudes fall with frequency as those of photographs do (1/f), channels alike but not equal."""
    y, x = np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH)[None]
    fall = 1 / np.maximum(np.hypot(y, x), 1 / _WIDTH)
    waves = fall * np.exp(2j * np.pi * rng.random((2, *fall.shape)))
    light, tint = np.fft.irfft2(waves, (_HEIGHT, _WIDTH))
    channels = np.stack([light + share * tint for share in (-0.3, 0.0, 0.3)], -1)
    return Image.fromarray(np.clip(128 + 55 * channels / channels.std(), 0, 255).astype(np.uint8))


def _jpeg(image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def made_up_jpegs(count: int, *, seed: int = 0) -> list[bytes]:
    """JPEG files of noise, 640 x 480 pixels, at the quality at which they are about as large as COCO's on average."""
    rng = np.random.default_rng(seed)
    first = _noise_image(rng)
    quality = min(range(50, 100), key=lambda quality: abs(len(_jpeg(first, quality)) - _BYTES))
    return [_jpeg(first, quality), *(_jpeg(_noise_image(rng), quality) for _ in range(count - 1))]


def _rate(batches, *, batch_size: int, seconds: float) -> float:
    """Pairs a second, over at least `seconds` and five batches, of an iterator that has begun."""
    for _ in range(_WARM_UP):
        next(batches)
    count, start = 0, time.perf_counter()
    while count < 5 or time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - start)


def _our_batches(images, config, *, batch_size: int, cores: int):
    count, length = len(images), config.data.max_tokens
    records = Records(
        images, np.ones((count, length), np.int32), np.arange(count + 1, dtype=np.int64), [["a"]] * count,
        np.arange(count, dtype=np.int32), [str(i) for i in range(count)],
    )
    data = config.data
    return train_batches(
        records, seed=0, global_batch=batch_size, image_size=data.image_size, scale=data.crop_scale, flip=data.flip,
        rand_augment=data.rand_augment, second_view=data.second_view, threads=cores,
    )


def cores_per_host(flops_per_pair: float, pairs_per_core: float, *, utilisation: float) -> dict:
    """Host cores that keep the four chips of a TPU v4 host busy.

    Args:
      flops_per_pair: of the training step.
      pairs_per_core: pairs a second that one core prepares.
      utilisation: share of the chips' peak that the step reaches.
    """
    rate = _V4_CHIPS_PER_HOST * CHIPS["v4"].peak_flops * utilisation / flops_per_pair
    return {"v4_host_pairs_per_second": rate, "v4_host_cores": rate / pairs_per_core}


def measure(config, *, seconds: float, cores: int | None = None, peer: bool = True, utilisation: float = 0.4) -> dict:
    """Pairs a second of the pipeline and of its peer with a config's views, in the same run on the same cores.

    Args:
      config: its `data` says what a view is; its step how much a TPU host asks for.
      seconds: to measure each for.
      cores: threads here and worker processes there; all the process may use by default.
      peer: whether to measure PIL under PyTorch's DataLoader as well.
      utilisation: as in `cores_per_host`.

    Returns:
      A dictionary of rates; "pairs" are images with a caption, of "views" views each.
    """
    from cbalign.plan.ahead import flops_per_pair

    cores = cores or len(os.sched_getaffinity(0))
    batch_size = min(_IMAGES, config.train.batch_size)
    images, views = made_up_jpegs(batch_size), 1 + config.data.second_view
    ours = _our_batches(images, config, batch_size=batch_size, cores=cores)
    rate = _rate(ours, batch_size=batch_size, seconds=seconds)
    del ours
    result = {
        "cores": cores, "jpeg_bytes": float(np.mean([len(x) for x in images])), "image_size": config.data.image_size,
        "views": views, "pairs_per_second": rate, "pairs_per_second_per_core": rate / cores,
    }
    if peer:
        workers = pil_input.loader(
            images, batch_size=batch_size, workers=cores, length=1 << 20, size=config.data.image_size,
            scale=tuple(config.data.crop_scale), flip=config.data.flip, rand_augment=config.data.rand_augment, views=views,
        )
        peer_rate = _rate(iter(workers), batch_size=batch_size, seconds=seconds)
        result |= {"peer_pairs_per_second": peer_rate, "ratio_to_peer": rate / peer_rate}
    return result | cores_per_host(flops_per_pair(config), rate / cores, utilisation=utilisation)
