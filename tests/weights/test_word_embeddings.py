"""Word embeddings from a BERT: pooled as transformers computes it, reduced as scikit-learn does, taken over by a run."""

import numpy as np
import pytest

from cbalign.__main__ import main
from cbalign.config import load_config
from cbalign.weights.weights_folder import read_weights
from cbalign.weights.word_embeddings import choose_words

WORDS = ["truck", "lorry", "tree", "##s", "##ing", "star", "moon", "sun", "Ω", "東", "[unused0]"]
VOCABULARY = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", "a", "b", "##a", *WORDS]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT at random, saved by transformers."""
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("bert")
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    return folder, model


def test_embeddings_are_the_principal_components_of_pooled_outputs(bert, tmp_path, capsys):
    torch, decomposition = pytest.importorskip("torch"), pytest.importorskip("sklearn.decomposition")
    folder, model = bert
    options = ["--config=emoji_scratch", "--config.model.text_width=8", "--config.data.vocabulary_size=17"]
    source = ["convert", "--source=word_embeddings", f"--checkpoint={folder}"]
    assert main([*source, *options, f"--out={tmp_path / 'out'}"]) in (0, None)
    read = read_weights(tmp_path / "out")
    (table,) = read.arrays.values()
    assert read.words == [
        *VOCABULARY[:1],
        *VOCABULARY[2:10],
        "##s",
        "truck",
        "lorry",
        "tree",
        "##ing",
        "star",
        "moon",
        "sun",
    ]

    rows = torch.tensor([[3, VOCABULARY.index(word), 4] for word in read.words[1:]])
    with torch.no_grad():
        pooled = model(rows).last_hidden_state.mean(1).double().numpy()
    reduced = decomposition.PCA(8).fit_transform(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
    reduced *= 2 * load_config("emoji_scratch").model.init_std / np.sqrt(np.mean(reduced**2))
    # Inner products do not depend on the components' signs.
    np.testing.assert_allclose(table[1:] @ table[1:].T, reduced @ reduced.T, atol=1e-5)
    assert not table[0].any() and "of the variance is kept" in capsys.readouterr().out


def test_frequent_ascii_words_are_kept():
    assert choose_words(VOCABULARY, 12) == [
        *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", "a", "b", "##a"],
        *["##s", "truck", "lorry"],
    ]


def test_mistakes_are_named(bert, tmp_path, capsys):
    folder, _ = bert
    base = ["convert", "--source=word_embeddings", "--config=emoji_scratch", f"--out={tmp_path / 'out'}"]
    assert main([*base, f"--checkpoint={folder}"]) == 2
    assert "24 wide, less than model.text_width=128" in capsys.readouterr().err
    assert (
        main([*base, f"--checkpoint={folder}", "--config.model.text_width=8", "--config.data.vocabulary_size=5"]) == 2
    )
    assert "no room" in capsys.readouterr().err
    (tmp_path / "file.safetensors").write_bytes(b"")
    assert main([*base, f"--checkpoint={tmp_path / 'file.safetensors'}"]) == 2
    assert not (tmp_path / "out").exists()
