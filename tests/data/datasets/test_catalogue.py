"""Finding data sets: by file in the package, registered by name, or imported from outside."""

import pathlib

import pytest
import tensorflow_datasets as tfds

from cbalign.data.datasets import catalogue
from cbalign.errors import UserError

OUTSIDE = """
import tensorflow_datasets as tfds
from cbalign.data.datasets import schema


class {cls}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(schema.captions()))

    def _split_generators(self, dl_manager):
        return {{"train": self._generate_examples()}}

    def _generate_examples(self):
        import io
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
        yield 0, {{"image": buffer.getvalue(), "captions": ["red"], "id": 0, "name": "one"}}
"""


def test_every_file_with_a_builder_is_a_data_set():
    package = pathlib.Path(catalogue.__file__).parent
    defined = {path.stem for path in package.rglob("*.py") if f'\n    name = "{path.stem}"' in path.read_text()}
    assert {"coco_karpathy", "vqa_v2"} <= defined and defined == set(catalogue.official_names())
    assert {"emoji", "scenes", "scenes_vqa", "scenes_nlvr2", "scenes_ve"} == (
        set(catalogue.names()) - defined - {"outside_registered", "outside_imported", "bright_quarters"}
    )


@pytest.mark.parametrize("way", ["registered", "imported"])
def test_a_data_set_from_outside(tmp_path, monkeypatch, way):
    module, cls = f"module_of_{way}", f"Outside{way.title()}"
    (tmp_path / f"{module}.py").write_text(OUTSIDE.format(cls=cls))
    monkeypatch.syspath_prepend(tmp_path)
    if way == "registered":
        monkeypatch.setattr(catalogue, "_registered", {})
        catalogue.register(f"outside_{way}", module)
    else:
        __import__(module)
    assert f"outside_{way}" in catalogue.names() and f"outside_{way}" not in catalogue.official_names()
    builder = catalogue.prepare(f"outside_{way}", str(tmp_path / "data"))
    (record,) = tfds.as_numpy(builder.as_dataset(split="train"))
    assert record["name"] == b"one" and record["image"].shape == (4, 4, 3)


def test_a_registered_module_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(catalogue, "_registered", {"nowhere": "no_such_module"})
    with pytest.raises(UserError, match="nowhere needs the module no_such_module, which is not installed"):
        catalogue.prepare("nowhere")


@pytest.mark.parametrize("name", ["folder", "schema", "shard_writer", "mnist", "nothing", ""])
def test_helpers_and_data_sets_of_tfds_are_none(name):
    assert name not in catalogue.names()
    with pytest.raises(UserError, match=f"there is no data set {name}"):
        catalogue.find_builder(name)
