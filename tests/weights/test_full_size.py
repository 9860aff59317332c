"""The memory that conversion of a ViT-B/16 with BERT-base takes, from random weights in the released layout."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cbalign.models.alignment import TEACHER_MODULES, AlignmentModel
from cbalign.models.towers import Sizes
from cbalign.weights.convert import param_shapes
from cbalign.weights.export import export_albef

QUEUE = 65536
_CONVERT = """
import json, sys, time
from cbalign.config import base_config
from cbalign.models.towers import sizes_of
from cbalign.weights.convert import convert

began = time.monotonic()
config = base_config()
sizes = sizes_of(config.model, image_size=config.data.image_size, vocab_size=config.data.vocabulary_size)
info = convert("albef", sys.argv[1], sys.argv[3], sizes=sizes, embed_dim=config.model.embed_dim,
               num_codes=config.codebook.num_codes, queue_size=config.queue.size, vocabulary=sys.argv[2])
# This program's own peak: getrusage starts from that of the parent process.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "seconds": time.monotonic() - began, "gigabytes": int(peak.split()[1]) * 1024 / 1e9,
    "matched": len(info["report"]["matched"]), "initialised": info["report"]["initialised"],
    "queue": info["report"]["queue"],
}))
"""


@pytest.mark.slow
def test_memory_of_a_full_size_conversion(tmp_path):
    """Below 6 GB, without reading the optimizer's state that released files contain; -s prints the seconds."""
    import torch

    words = tmp_path / "vocab.txt"
    words.write_text(
        "".join(
            f"{word}\n" for word in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30517))]
        )
    )
    model = AlignmentModel(
        Sizes(
            image_size=256,
            patch_size=16,
            image_width=768,
            image_depth=12,
            image_heads=12,
            vocab_size=30522,
            max_positions=512,
            text_width=768,
            text_depth=6,
            text_heads=12,
            fusion_depth=6,
        )
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in param_shapes(model).items()}
    arrays |= {
        name.replace("params/", "teacher/"): array
        for name, array in arrays.items()
        if name.split("/")[1] in TEACHER_MODULES
    }
    arrays |= {f"queue/{side}": rng.standard_normal((QUEUE, 256), np.float32) for side in ("image", "text")}
    arrays["queue/pointer"] = np.asarray(512, np.int32)
    del arrays["params/codebook/codes"]
    path = export_albef(tmp_path / "albef", arrays, model, settings={})
    loaded = torch.load(path, weights_only=True, mmap=True)
    moments = {"state": {0: {"exp_avg": torch.zeros(100_000_000)}}}
    torch.save({**loaded, "optimizer": moments}, tmp_path / "released.pth")
    result = subprocess.run(
        [sys.executable, "-c", _CONVERT, tmp_path / "released.pth", words, tmp_path / "out"],
        check=True,
        capture_output=True,
        text=True,
    )
    measured = json.loads(result.stdout.splitlines()[-1])
    print(measured)
    assert measured["initialised"] == ["codebook/codes"] and measured["queue"]
    assert measured["gigabytes"] < 6
