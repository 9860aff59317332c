"""BERT's WordPiece tokenizer with the `tokenizers` library alone: `transformers` takes a second to import."""

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPieces:
    """A lower-case WordPiece tokenizer; gives the ids of `transformers.BertTokenizer` without special tokens.

    Attributes:
      pad_token_id, unk_token_id, cls_token_id, sep_token_id, mask_token_id: ids of the special tokens.
    """

    def __init__(self, vocabulary: dict[str, int]):
        """Takes {token: id}, with all special tokens."""
        self._tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        # Written out in a text, they are not taken apart.
        self._tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        self.pad_token_id, self.unk_token_id, self.cls_token_id, self.sep_token_id, self.mask_token_id = (
            vocabulary[token] for token in SPECIAL_TOKENS
        )

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def get_vocab(self) -> dict[str, int]:
        """{token: id}."""
        return self._tokenizer.get_vocab()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text's tokens, without [CLS] and [SEP]."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of some ids."""
        return [self._tokenizer.id_to_token(number) for number in ids]
