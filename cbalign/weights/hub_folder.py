"""The further files of a folder for a model hub: config, tokenizer, PyTorch model and card."""

from __future__ import annotations

import importlib.resources
import json
import os
import tempfile
from typing import Any

import jinja2
from etils import epath

_MODEL = "modeling_cbalign.py"


def hub_files(info: dict[str, Any], tokenizer: Any, *, title: str, figures: list[str]) -> dict[str, str]:
    """The files with which `transformers.AutoModel` and a hub's page read exported weights.

    Args:
      info: of weights.json, with "sizes" and "config".
      tokenizer: of the vocabulary.
      title: of the card.
      figures: tables of results, for the card.

    Returns:
      {file name: text}.
    """
    # Its tokenizer alone is used; that PyTorch is missing is no news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    resources = importlib.resources.files("cbalign.weights") / "hub_files"
    config = info["config"]
    described = {
        "architectures": ["CbalignModel"],
        "auto_map": {"AutoConfig": "modeling_cbalign.CbalignConfig", "AutoModel": "modeling_cbalign.CbalignModel"},
        "model_type": "cbalign",
        **info["sizes"],
        "max_tokens": config["eval"]["max_tokens"] or config["data"]["max_tokens"],
        "max_words": config["eval"]["max_words"] or config["data"]["max_words"],
        "num_codes": config["codebook"]["num_codes"],
        "embed": config["codebook"].get("embed", False),
        "embed_temperature": config["codebook"].get("embed_temperature", 0.1),
        "code_temperature": config["codebook"]["temperature"],
    }
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    card = template.from_string((resources / "card.md.jinja").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        transformers.BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=True).save_pretrained(folder)
        files = {path.name: path.read_text() for path in epath.Path(folder).iterdir()}
    return files | {
        "config.json": json.dumps(described, indent=2) + "\n",
        _MODEL: (resources / _MODEL).read_text(encoding="utf-8"),
        "README.md": card.render(title=title, config=config, sizes=info["sizes"], figures=figures),
    }
