"""The encoders of a run."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

from cbalign.data import text
from cbalign.errors import UserError
from cbalign.inference import Encoder, Source
from cbalign.inference.encoder import unknown_words


def test_text_warnings(encoder):
    feature, warnings = encoder.text("A large red circle!")
    assert not warnings and np.linalg.norm(feature) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(feature, encoder.text("a LARGE red circle")[0])
    assert "is meaningless" in encoder.text("漢字")[1][0]
    assert "is meaningless" in encoder.text(" ?! ")[1][0]
    assert "only the first 11 tokens" in encoder.text("red circle " * 20)[1][0]


def test_unknown_words_are_sought_among_those_that_the_model_reads(encoder):
    far = "red " * 40 + "漢字"
    assert unknown_words(encoder.tokenizer, far, max_words=30) == []
    assert unknown_words(encoder.tokenizer, far, max_words=50) == ["漢字"]
    # Between two spaces the cleaning of questions counts a word.
    spaced = "red  circle 漢字"
    assert unknown_words(encoder.tokenizer, spaced, max_words=3) == ["漢字"]
    assert unknown_words(encoder.tokenizer, spaced, max_words=3, cleaning="question") == []


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
    task = types.SimpleNamespace(name="vqa", shares_embedding_space=False, config=opened.config)
    with pytest.raises(UserError, match="task vqa, which has no shared embedding space"):
        Encoder.of(Source("runs/vqa", task, opened.tokenizer, {}))


@pytest.mark.slow
def test_neither_search_nor_predictions_need_tensorflow(tiny_run, exported, folder):
    code = f"""if True:
        import sys
        sys.modules["tensorflow"] = None
        from cbalign.__main__ import main
        for workdir in ({str(tiny_run)!r}, {str(exported)!r}):
            for rest in (["a red circle"], ["--like={folder}/a.png"]):
                assert main(["search", f"--workdir={{workdir}}", "--images={folder}", *rest]) == 0
            predict = ["predict", f"--workdir={{workdir}}", "--task=match", "--image={folder}/a.png", "a red circle"]
            assert main(predict) == 0
        assert main(["embed", "--workdir={tiny_run}", "--images={folder}", "--out={folder}/out.npz"]) == 0
        print(sorted({{"tensorflow", "torch"}} & {{name for name, module in sys.modules.items() if module}}))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / ".cache")},
    )
    assert done.stdout.splitlines()[-1] == "[]"
