"""TCL's colour distortions against PIL, as torchvision uses it; their draws against their rates."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy import stats

tf = pytest.importorskip("tensorflow")

from cbalign.data.augment import color


def photo(height=60, width=75):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / a) * np.cos(y / b) for a, b in ((9.0, 11.0), (14.0, 6.0), (5.0, 17.0))]
    return np.clip(np.stack(channels, -1) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


IMAGES = [
    photo(),
    np.random.default_rng(2).integers(0, 256, (40, 40, 3)).astype(np.uint8),
    np.full((9, 9, 3), 77, np.uint8),
]


def pil_hue(image, shift):
    hue, saturation, value = (np.array(channel) for channel in Image.fromarray(image).convert("HSV").split())
    hue = hue + np.int32(shift * 255).astype(np.uint8)
    channels = [Image.fromarray(channel) for channel in (hue.astype(np.uint8), saturation, value)]
    return np.asarray(Image.merge("HSV", channels).convert("RGB"))


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("factor", [0.6, 0.95, 1.0, 1.4])
def test_enhancements_are_pils(image, factor):
    reference = Image.fromarray(image)
    for ours, pils in (
        (color.adjust_brightness, ImageEnhance.Brightness),
        (color.adjust_contrast, ImageEnhance.Contrast),
        (color.adjust_saturation, ImageEnhance.Color),
    ):
        result = ours(tf.constant(image), factor).numpy().astype(int)
        assert np.abs(result - np.asarray(pils(reference).enhance(factor))).max() <= 1, pils.__name__


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("shift", [-0.1, -0.03, 0.0, 0.07, 0.1])
def test_hue_is_torchvisions(image, shift):
    result = color.adjust_hue(tf.constant(image), tf.constant(shift)).numpy().astype(int)
    difference = np.abs(result - pil_hue(image, shift))
    # A rounding on the edge of a step of the hue moves single pixels.
    assert difference.mean() < 0.02 and np.mean(difference > 1) < 0.005


def test_grey_is_pils():
    expected = np.asarray(Image.fromarray(IMAGES[0]).convert("L"))
    np.testing.assert_array_equal(
        color.greyscale(tf.constant(IMAGES[0])).numpy(), np.repeat(expected[..., None], 3, -1)
    )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_close_to_pils(sigma):
    result = color.gaussian_blur(tf.constant(IMAGES[0]), sigma).numpy().astype(float)
    expected = np.asarray(Image.fromarray(IMAGES[0]).filter(ImageFilter.GaussianBlur(sigma)))
    assert np.abs(result - expected).mean() < 1


def mapped(function, elements):
    """Images of many elements, in one graph."""
    return tf.function(lambda: tf.map_fn(function, elements, fn_output_signature=tf.uint8))().numpy()


@pytest.mark.slow
def test_each_distortion_has_its_rate(monkeypatch):
    monkeypatch.setattr(color, "BLUR_SIGMA", (1.0, 2.0))  # the weakest blurs leave an image as it is
    image, count = tf.constant(IMAGES[0][:12, :12]), 600

    def distorted(number, jitter, grey, blur):
        seed = tf.stack([tf.constant(3, tf.int64), number])
        return color.distort_color(image, seed, jitter=jitter, grey=grey, blur=blur)

    for probabilities in ((0.8, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.5)):
        views = mapped(lambda n, p=probabilities: distorted(n, *p), tf.range(count, dtype=tf.int64))
        different = np.any(views != image.numpy(), axis=(1, 2, 3)).sum()
        assert stats.binomtest(int(different), count, max(probabilities)).pvalue > 1e-4


def test_jitter_draws_amounts_and_orders():
    """All four amounts spread over their ranges, and the order matters: equal amounts give different images."""
    image = tf.constant(IMAGES[0][:8, :8])
    seeds = tf.stack([tf.zeros(400, tf.int64), tf.range(400, dtype=tf.int64)], 1)
    views = mapped(lambda seed: color.color_jitter(image, seed), seeds)
    brightness = views.reshape(400, -1).mean(1) / IMAGES[0][:8, :8].mean()
    assert len(np.unique(views, axis=0)) == 400
    assert 0.58 < brightness.min() < 0.66 and 1.2 < brightness.max() < 1.42


def test_view_depends_on_the_seed_alone():
    image = tf.constant(IMAGES[0])
    views = [color.distort_color(image, tf.constant([5, number], tf.int64)).numpy() for number in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.any(views[0] != views[2])
