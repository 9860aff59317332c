"""A trained model put to use: index a folder of pictures, rank it for a text or for another picture.

    run = open_run("runs/emoji")
    encoder = Encoder.of(run)
    index = index_folder(run, "holiday", encoder=encoder)
    for hit in search(index, encoder.text("a delivery truck")[0], top=5):
        print(hit.score, hit.path)
"""

from cbalign.search.encoder import BATCH, Encoder, keep_compiled
from cbalign.search.index import Hit, Index, Skipped, index_folder, search
from cbalign.search.pictures import MAX_PIXELS, UnreadablePicture, read_picture

__all__ = ["BATCH", "MAX_PIXELS", "Encoder", "Hit", "Index", "Skipped", "UnreadablePicture", "index_folder",
           "keep_compiled", "read_picture", "search"]
