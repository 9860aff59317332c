"""A trained model put to use: index a folder of images, rank it for a text or for another image.

    run = open_run("runs/emoji")
    encoder = Encoder.of(run)
    index = index_folder(run, "holiday", encoder=encoder)
    for hit in search(index, encoder.text("a delivery truck")[0], top=5):
        print(hit.score, hit.path)
"""

from cbalign.inference.encoder import BATCH, Encoder, keep_compiled
from cbalign.inference.image_index import Hit, Index, Skipped, index_folder, search
from cbalign.inference.image_files import MAX_PIXELS, UnreadableImage, read_image

__all__ = ["BATCH", "MAX_PIXELS", "Encoder", "Hit", "Index", "Skipped", "UnreadableImage", "index_folder",
           "keep_compiled", "read_image", "search"]
