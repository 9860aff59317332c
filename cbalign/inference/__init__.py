"""A trained model put to use: features, search among images, predictions; needs no tensorflow.

model = load("runs/emoji")
for hit in model.search("holiday", "a delivery truck", top=5):
    print(hit.score, hit.path)
"""

from cbalign.inference.codebook import TopCodes, TrainedCodebook
from cbalign.inference.encoder import BATCH, Encoder, keep_compiled
from cbalign.inference.explanation import Explainer, Explanation
from cbalign.inference.image_index import Hit, Index, Skipped, index_folder, search
from cbalign.inference.model import Model, load
from cbalign.inference.predictor import Predictor
from cbalign.inference.source import Source, open_source

__all__ = [
    "BATCH",
    "Encoder",
    "Explainer",
    "Explanation",
    "Hit",
    "Index",
    "Model",
    "Predictor",
    "Skipped",
    "Source",
    "TopCodes",
    "TrainedCodebook",
    "index_folder",
    "keep_compiled",
    "load",
    "open_source",
    "search",
]
