"""The encoders of a run."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from cbalign.data import text
from cbalign.errors import UserError
from cbalign.inference import Encoder


def test_text_warnings(encoder):
    feature, warnings = encoder.text("A large red circle!")
    assert not warnings and np.linalg.norm(feature) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(feature, encoder.text("a LARGE red circle")[0])
    assert "means nothing" in encoder.text("漢字")[1][0]
    assert "means nothing" in encoder.text(" ?! ")[1][0]
    assert "only the first 11 tokens" in encoder.text("red circle " * 20)[1][0]


def test_many_texts_are_encoded_as_one_by_one(encoder):
    captions = [f"a {colour} {shape} {i}" for i in range(12) for colour in ("red", "blue") for shape in ("circle", "")]
    captions[7], captions[20] = "漢字", "red circle " * 20
    seen = []
    encoded = encoder.texts(captions, progress=lambda *event: seen.append(event))
    assert (encoded.unknown, encoded.cut, seen) == ([7], [20], [(32, 48), (48, 48)])
    for row in (0, 20, 33, 47):
        np.testing.assert_allclose(encoded.features[row], encoder.text(captions[row])[0], atol=1e-6)
    # Against the model itself, without padding to a batch.
    ids = text.encode(encoder.tokenizer, [text.clean_caption(c) for c in captions], max_length=encoder.max_tokens)
    np.testing.assert_allclose(encoded.features, encoder.functions.encode_text(ids)["feature"], atol=1e-6)


def test_a_run_without_features_is_refused(opened):
    config = type(opened.config)(opened.config.to_dict()).unlock()
    config.task = "vqa"
    with pytest.raises(UserError, match="task vqa, which compares no features"):
        Encoder.of(dataclasses.replace(opened, config=config))


@pytest.mark.slow
def test_a_repeated_search_needs_no_tensorflow(tiny_run, folder):
    code = "import sys; from cbalign.__main__ import main\n" \
           f"code = main(['search', '--workdir={tiny_run}', '--images={folder}', 'a red circle'])\n" \
           "assert code == 0\nprint(sorted({'tensorflow', 'torch'} & set(sys.modules)))"
    loaded = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
              .stdout.splitlines()[-1] for _ in range(2)]
    assert "tensorflow" in loaded[0] and loaded[1] == "[]"
