"""Throughput of the input pipeline on COCO-sized JPEGs, compared with PIL and PyTorch's DataLoader."""

import io
import os
import time

import numpy as np
from PIL import Image

from cbalign.bench import pil_input
from cbalign.data.columns import Columns
from cbalign.data.pipeline import train_batches
from cbalign.data.records import records_in_memory
from cbalign.plan.chips import CHIPS

# COCO train2014: 82,783 images in 13.5 GB, most of them 640 x 480 pixels.
_WIDTH, _HEIGHT, _BYTES = 640, 480, 163_000
_IMAGES = 64
_WARM_UP = 3
"""Untimed batches, while worker processes start and buffers fill."""
_V4_CHIPS_PER_HOST = 4


def _noise_image(rng) -> Image.Image:
    """A noise image with the 1/f spectrum of photographs and correlated channels."""
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
    """JPEG files of noise, 640 x 480 pixels, at the quality that gives COCO's average file size."""
    rng = np.random.default_rng(seed)
    first = _noise_image(rng)
    quality = min(range(50, 100), key=lambda quality: abs(len(_jpeg(first, quality)) - _BYTES))
    return [_jpeg(first, quality), *(_jpeg(_noise_image(rng), quality) for _ in range(count - 1))]


def _rate(batches, *, batch_size: int, seconds: float) -> float:
    """Pairs per second of an iterator, measured after a warm-up over at least `seconds` and five batches."""
    for _ in range(_WARM_UP):
        next(batches)
    count, start = 0, time.perf_counter()
    while count < 5 or time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - start)


def _our_batches(images, config, *, batch_size: int, cores: int):
    data, count = config.data, len(images)
    # Decoded at every read: a data set of COCO's size does not fit into memory decoded.
    records = records_in_memory("captions", images, [["a"]] * count, decode=False)
    columns = Columns(np.ones((count, data.max_tokens), np.int32), arrays={"id": records.columns["id"]})
    return train_batches(
        records,
        columns,
        seed=0,
        global_batch=batch_size,
        image_size=data.image_size,
        scale=data.crop_scale,
        flip=data.flip,
        rand_augment=data.rand_augment,
        second_view=data.second_view,
        threads=cores,
    )


def cores_per_host(flops_per_pair: float, pairs_per_core: float, *, utilisation: float) -> dict:
    """Number of host cores needed to feed the four chips of a TPU v4 host.

    Args:
      flops_per_pair: FLOPs of the training step per pair.
      pairs_per_core: pairs per second that one core prepares.
      utilisation: fraction of the chips' peak that the step reaches.
    """
    rate = _V4_CHIPS_PER_HOST * CHIPS["v4"].peak_flops * utilisation / flops_per_pair
    return {"v4_host_pairs_per_second": rate, "v4_host_cores": rate / pairs_per_core}


def measure(config, *, seconds: float, cores: int | None = None, peer: bool = True, utilisation: float = 0.4) -> dict:
    """Measures the throughput of the pipeline, and of its PyTorch peer, with a config's views on the same cores.

    Args:
      config: `config.data` defines the views; the training step defines how many pairs a TPU host consumes.
      seconds: duration of each measurement.
      cores: threads of the pipeline and worker processes of the peer; by default all cores available to the process.
      peer: whether to also measure PIL with PyTorch's DataLoader.
      utilisation: see `cores_per_host`.

    Returns:
      Rates by name; a pair is an image with a caption, decoded to `views` views.
    """
    from cbalign.plan.ahead import flops_per_pair

    cores = cores or len(os.sched_getaffinity(0))
    batch_size = min(_IMAGES, config.train.batch_size)
    images, views = made_up_jpegs(batch_size), 1 + config.data.second_view
    ours = _our_batches(images, config, batch_size=batch_size, cores=cores)
    rate = _rate(ours, batch_size=batch_size, seconds=seconds)
    del ours
    result = {
        "cores": cores,
        "jpeg_bytes": float(np.mean([len(x) for x in images])),
        "image_size": config.data.image_size,
        "views": views,
        "pairs_per_second": rate,
        "pairs_per_second_per_core": rate / cores,
    }
    if peer:
        workers = pil_input.loader(
            images,
            batch_size=batch_size,
            workers=cores,
            length=1 << 20,
            views=views,
            size=config.data.image_size,
            scale=tuple(config.data.crop_scale),
            flip=config.data.flip,
            rand_augment=config.data.rand_augment,
        )
        peer_rate = _rate(iter(workers), batch_size=batch_size, seconds=seconds)
        result |= {"peer_pairs_per_second": peer_rate, "ratio_to_peer": rate / peer_rate}
    return result | cores_per_host(flops_per_pair(config), rate / cores, utilisation=utilisation)
