"""The codebook of a trained model: probabilities of codes, and the images that lie nearest to a code."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.inference.image_index import Hit, Index, search
from cbalign.inference.source import Source
from cbalign.losses.codebook import code_logits


@dataclasses.dataclass(frozen=True)
class TopCodes:
    """The likeliest codes of an image or a text, best first.

    Attributes:
      codes: int64 [n], their numbers in the codebook.
      probabilities: float32 [n], of softmax(z C^T / tau_c) over all K codes.
    """

    codes: np.ndarray
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainedCodebook:
    """The codes of a model that trained them.

    Attributes:
      codes: float32 [K, d], rows of unit length.
      temperature: tau_c of the code probabilities.
    """

    codes: np.ndarray
    temperature: float

    @classmethod
    def of(cls, source: Source) -> TrainedCodebook:
        """The codebook of a model.

        Raises:
          UserError: the model has none, or never trained it.
        """
        task, config = source.task, source.task.config
        if not task.trains_codebook:
            why = "loss_weights.code=0" if task.shares_embedding_space else f"task {task.name}"
            raise UserError(f"the codebook of {source.name} was never trained ({why})")
        params = devices.copy_to_local(source.params)
        codes = np.asarray(task.model.apply({"params": params}, method="codes"), np.float32)
        return cls(codes, config.codebook.temperature or float(params["temperature"]["value"]))

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """softmax(z C^T / tau_c) of features [n, d], with `codebook.embed` of mixtures: float32 [n, K]."""
        logits = code_logits(features, self.codes, temperature=self.temperature)
        return np.asarray(jax.nn.softmax(logits, axis=-1), np.float32)

    def top(self, feature: np.ndarray, count: int) -> TopCodes:
        """The `count` likeliest codes of a feature [d], equal ones by number; all where K is smaller."""
        probabilities = self.probabilities(feature[np.newaxis])[0]
        best = np.argsort(-probabilities, kind="stable")[:count]
        return TopCodes(best, probabilities[best])

    def neighbours(self, numbers, index: Index, top: int) -> list[list[Hit]]:
        """The images nearest to each of some codes by cosine.

        Args:
          numbers: of the codes.
          index: of the images.
          top: images for each code; fewer where the index has no more.

        Raises:
          UserError: there is no such code.
        """
        wanted = np.atleast_1d(np.asarray(numbers, np.int64)).tolist()
        for number in wanted:
            if not 0 <= number < len(self.codes):
                raise UserError(f"there is no code {number}; the codebook has codes 0 to {len(self.codes) - 1}")
        return [search(index, self.codes[number], top) for number in wanted]
