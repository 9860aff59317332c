"""TFDS builder of `visual_genome`: images with the descriptions of their regions as captions."""

import pathlib

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.json_files import fields_of, read_json
from cbalign.data.datasets.official.manual import Contents, Files, Listing, ManualBuilder

_TESTED = ("val", "test")
IN_OTHER_TESTS = "in the evaluation of COCO or Flickr30K"


class VisualGenome(ManualBuilder):
    """Visual Genome: an image's captions are the descriptions of its regions, each once.

    Half of the images are COCO's. Those that are evaluated upon in Karpathy's splits of COCO or Flickr30K are left
    out where the files that tell are there, as UNITER and the works after it do.
    """

    name = "visual_genome"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    # Version 1.4, all images; what is left without the evaluated ones depends on the files given.
    EXPECTED = {"train": 108_077}
    INSTRUCTIONS = """
    VG_100K/*.jpg, VG_100K_2/*.jpg
        images.zip and images2.zip from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html, unpacked
    region_descriptions.json
        from the same page, unpacked
    image_data.json; dataset_coco.json and dataset_flickr30k.json (optional, all or some)
        from the same page and from https://cs.stanford.edu/people/karpathy/deepimagesent/ (caption_datasets.zip): with
        them, images that COCO's and Flickr30K's evaluations use are left out
    """

    def read(self, files: Files) -> Contents:
        contents = Contents()
        path = files.find("region_descriptions.json")
        if path is None:
            return contents
        tested = _tested_elsewhere(files, contents)
        listing = contents.splits["train"] = Listing()
        with fields_of(path):
            for entry in read_json(path, list, _condense):
                number = entry["id"] if "id" in entry else entry["regions"][0][0]
                name = f"{number}.jpg"
                if number in tested:
                    listing.left_out[IN_OTHER_TESTS].append(name)
                    continue
                phrases = [phrase for _, phrase in entry["regions"]]
                listing.add_captions(name, files.image(name), phrases, number)
        return contents


def _condense(entry: dict):
    """Of the five million regions, only the phrases: their other fields would fill ten gigabytes."""
    return (entry["image_id"], entry["phrase"]) if "phrase" in entry else entry


def _tested_elsewhere(files: Files, contents: Contents) -> set[int]:
    """Numbers of the images in `val` or `test` of Karpathy's COCO or Flickr30K, as far as the files tell."""
    data = files.find("image_data.json")
    lists = {name: files.find(name) for name in ("dataset_coco.json", "dataset_flickr30k.json")}
    lacking = [name for name, path in {"image_data.json": data, **lists}.items() if path is None]
    if lacking:
        contents.notes.append(
            f"no {', '.join(lacking)}: images on which {_evaluations(lacking)} evaluated may be among these"
        )
    if data is None:
        return set()
    coco, flickr = (_tested(path) if path else set() for path in lists.values())
    with fields_of(data):
        return {
            entry["image_id"] for entry in read_json(data, list)
            if entry["coco_id"] in coco or entry["flickr_id"] in flickr
        }


def _evaluations(lacking: list[str]) -> str:
    if "image_data.json" in lacking or len(lacking) == 2:
        return "COCO and Flickr30K are"
    return "COCO is" if lacking == ["dataset_coco.json"] else "Flickr30K is"


def _tested(path: pathlib.Path) -> set[int]:
    """COCO's numbers, or Flickr's, of the images in `val` and `test`."""
    with fields_of(path):
        return {
            entry["cocoid"] if "cocoid" in entry else int(pathlib.Path(entry["filename"]).stem)
            for entry in read_json(path, dict)["images"] if entry["split"] in _TESTED
        }
