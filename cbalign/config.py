"""The configuration of a run: loading, overriding and checking; the fields themselves are in `config_fields.py`.

A config file is Python with a function `get_config()` that starts from `base_config()`, or from another config
(`derived_from`), and changes a few lines. An unknown field, another type or a value out of range is an error before
anything is built.
"""

import ast
import difflib
import functools
import importlib.machinery
import importlib.resources
import json
import math
import os
import pathlib
import re
import types
from collections.abc import Iterable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from cbalign.config_fields import FIELDS
from cbalign.config_miniature import shrink
from cbalign.errors import UserError
from cbalign.storage import parse_json

# Larger numbers fit neither the arrays nor any machine.
_MAX_INT = 2**32


def base_config() -> ConfigDict:
    """The full-size pretraining of the paper: every field at its default."""
    config = ConfigDict()
    for name, field in FIELDS.items():
        section, _, last = name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        (config[section] if section else config)[last] = field.default
    return config.lock()


def load_config(name: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Loads a config, applies overrides and checks the result.

    A config file is code, and it is run: load only files you trust.

    Args:
      name: a Python file, or the name of a config that comes with cbalign ("emoji", "paper/pretrain"). What follows a
        colon is passed to its `get_config` ("paper/ablation:sinkhorn").
      overrides: "a.b=value" each; the value is Python, or a plain word where the field is a string. With
        "rehearse=True" they change the miniature of the config.

    Raises:
      UserError: no such config, no get_config, an unknown field, a wrong type, a value out of range.
    """
    config, overrides = _run_file(name), tuple(overrides)
    override(config, (text for text in overrides if text.partition("=")[0] == "rehearse"))
    if config.rehearse:
        shrink(config)
    override(config, overrides)
    check_config(config)
    return config


def stored_config(workdir: os.PathLike | str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The config of the run in a folder, with overrides, checked.

    Raises:
      UserError: the folder holds no run, or its config cannot be read.
    """
    file = epath.Path(workdir) / "config.json"
    if not file.exists():
        raise UserError(f"{workdir} holds no run yet (no config.json); name a config with --config=NAME")
    try:
        config = from_json(file.read_text())
        check_config(config)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text, so that it is damaged; train again") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    override(config, overrides)
    check_config(config)
    return config


def derived_from(file: str, name: str) -> ConfigDict:
    """The config of the file `name` beside `file`, for a config that changes a few lines of another one."""
    return _run_file(str(pathlib.Path(file).parent / name))


def config_folder() -> pathlib.Path:
    """The folder of the configs that come with cbalign: inside an installed package, beside it in a checkout."""
    package = pathlib.Path(str(importlib.resources.files("cbalign")))
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Names of the configs that come with cbalign, sorted."""
    folder = config_folder()
    return sorted(plain_name(file.relative_to(folder).as_posix()) for file in folder.rglob("*.py"))


def plain_name(name: str) -> str:
    """The name of a config that comes with cbalign as tables and suites write it: "paper/pretrain"."""
    name, colon, argument = name.partition(":")
    return name.removeprefix("configs/").removesuffix(".py") + colon + argument


def find_config(name: str) -> pathlib.Path:
    """The file of a config without its argument.

    Args:
      name: a Python file, or the name of a config that comes with cbalign.

    Raises:
      UserError: there is none.
    """
    for file in (pathlib.Path(name), config_folder() / f"{plain_name(name)}.py"):
        if file.is_file():
            return file
    near = difflib.get_close_matches(plain_name(name), config_names(), n=1)
    remedy = f"did you mean {near[0]}?" if near else f"those that come with cbalign are {', '.join(config_names())}"
    raise UserError(f"no config file {name}; {remedy}")


def _run_file(name: str) -> ConfigDict:
    """What `get_config` of a config file returns."""
    name, colon, argument = name.partition(":")
    file = find_config(name)
    loader = importlib.machinery.SourceFileLoader("cbalign_config_file", str(file))
    module = types.ModuleType(loader.name)
    module.__file__ = str(file)
    try:
        loader.exec_module(module)
        config = module.get_config(argument) if colon else module.get_config()
    except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, NameError, ImportError, OSError) as error:
        raise UserError(f"config file {name}: {_first_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {name}: get_config() returns {type(config).__name__}; it must return the config")
    return config


def _first_line(error: Exception) -> str:
    # ConfigDict's message for an unknown name lists every field there is; its first sentence and last line will do.
    text = str(error).strip('"').replace("\\n", "\n") or type(error).__name__
    hint = re.search(r"Did you mean .*", text)
    return text.splitlines()[0].partition(" Other fields present")[0] + (f" {hint.group(0)}" if hint else "")


def field_names(config: ConfigDict, prefix: str = "") -> list[str]:
    """All dotted names of a config."""
    names = []
    for name in config:
        inner = config[name]
        names += field_names(inner, f"{prefix}{name}.") if isinstance(inner, ConfigDict) else [prefix + name]
    return names


def field_value(config: ConfigDict, name: str) -> Any:
    """The value of a dotted name."""
    return functools.reduce(lambda section, part: section[part], name.split("."), config)


def override(config: ConfigDict, overrides: Iterable[str]) -> None:
    """Changes fields of a config in place.

    Args:
      config: from `base_config` or `load_config`.
      overrides: "a.b=value" each, as for `load_config`.

    Raises:
      UserError: an unknown field, no value, or one of another type.
    """
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--config.{_typed(text)} has no value; write --config.{_typed(text)}=VALUE")
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            raise UserError(f"no config field {_shown(name)}" + (f"; did you mean {near[0]!r}?" if near else ""))
        section, _, last = name.rpartition(".")
        owner = config[section] if section else config
        owner[last] = _parse(name, value, owner[last])


def _parse(name: str, text: str, current: Any) -> Any:
    """Turns the text of an override into a value of the field's type."""
    if isinstance(current, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if isinstance(current, tuple):
            return tuple(word.strip() for word in text.split(",") if word.strip())
        value = text
    if isinstance(current, tuple):
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < _MAX_INT**2 else math.inf
    if type(value) is not type(current):
        raise UserError(f"--config.{name}={_typed(text)}: expected {type(current).__name__}, as in {current!r}")
    return value


def check_config(config: ConfigDict) -> None:
    """Checks every field's range and the rules between fields that hold for all tasks.

    What a task needs beyond that, `TASKS[config.task].check(config)` checks.

    Raises:
      UserError: naming the field, its value and what it must be.
    """
    for name, field in FIELDS.items():
        value = field_value(config, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config field {name} is {value!r}; it must be finite ({field.meaning})")
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise UserError(f"config field {name} is {_shown(value)}; it must be below 2**32 ({field.meaning})")
        if field.range is None:
            continue
        try:
            fine = field.range.holds(value)
        except TypeError:
            fine = False
        if not fine:
            wanted = f"it must be {field.range.wanted} ({field.meaning})"
            raise UserError(f"config field {name} is {_shown(value)}; {wanted}")
    for holds, message in _rules(config):
        if not holds:
            raise UserError(f"config: {message}")
    _check_groups(config.optimizer.groups)


def _rules(c: ConfigDict) -> list[tuple[bool, str]]:
    """[(whether a rule between fields holds, the message where it does not)]."""
    return [
        (
            c.data.image_size % c.model.patch_size == 0,
            f"data.image_size={c.data.image_size} is not a multiple of model.patch_size={c.model.patch_size}",
        ),
        (
            c.model.image_width % c.model.image_heads == 0,
            f"model.image_heads={c.model.image_heads} does not divide model.image_width={c.model.image_width}",
        ),
        (
            c.model.text_width % c.model.text_heads == 0,
            f"model.text_heads={c.model.text_heads} does not divide model.text_width={c.model.text_width}",
        ),
        (
            c.data.max_tokens <= c.model.max_positions,
            f"data.max_tokens={c.data.max_tokens} is more than model.max_positions={c.model.max_positions}",
        ),
        (
            c.eval.max_tokens <= c.model.max_positions,
            f"eval.max_tokens={c.eval.max_tokens} is more than model.max_positions={c.model.max_positions}",
        ),
        (
            c.train.batch_size % c.train.microbatches == 0,
            f"train.batch_size={c.train.batch_size} is not a multiple of train.microbatches={c.train.microbatches}",
        ),
        (
            (c.train.steps > 0) != (c.train.epochs > 0),
            f"set exactly one of train.steps={c.train.steps} and train.epochs={c.train.epochs}, the other to 0",
        ),
        (
            not (c.init.checkpoint and c.init.weights),
            "init.checkpoint and init.weights are both set; a run starts from one of them",
        ),
    ]


def _check_groups(groups: tuple) -> None:
    for group in groups:
        try:
            pattern, *factors = group
            re.compile(pattern)
            fine = len(factors) == 2 and isinstance(pattern, str) and all(map(_is_factor, factors))
        except (TypeError, ValueError, OverflowError, RecursionError, re.error):
            fine = False
        if not fine:
            raise UserError(f"config field optimizer.groups: {_shown(group)} is not (pattern, factor, factor)")


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list ...
        return "too long to be shown"
    return _cut(shown)


def _typed(text: str) -> str:
    """What a user typed, on one line."""
    return _cut(repr(text)[1:-1])


def _cut(shown: str) -> str:
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def resolve_epochs(config: ConfigDict, *, steps_per_epoch: int) -> ConfigDict:
    """A copy in which durations given in epochs are steps: train.steps and contrast.alpha_ramp_steps."""
    config = ConfigDict(config.to_dict(), convert_dict=True).unlock()
    if not config.train.steps:
        config.train.steps = config.train.epochs * steps_per_epoch
        config.train.epochs = 0
    if config.contrast.alpha_ramp_steps < 0:
        config.contrast.alpha_ramp_steps = steps_per_epoch
    return config.lock()


def to_json(config: ConfigDict) -> str:
    """Readable JSON of the whole config."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """The config a run stored; fields that later versions added take their defaults.

    Raises:
      UserError: damaged text, a field this version does not know, or a value of another type.
    """
    config = base_config()
    try:
        stored = parse_json(text)
    except ValueError as error:
        raise UserError(f"the stored config is damaged: {error}") from error
    _merge(config, stored, "")
    return config


def _merge(section: ConfigDict, values: Any, prefix: str) -> None:
    """Takes over stored values field by field."""
    if not isinstance(values, dict):
        raise UserError(f"the stored config is damaged: {prefix.rstrip('.') or 'it'} is no JSON object")
    for name, value in values.items():
        if name not in section:
            raise UserError(f"the stored config has a field {prefix}{name} that this version does not know")
        if isinstance(section[name], ConfigDict):
            _merge(section[name], value, f"{prefix}{name}.")
            continue
        try:
            # ConfigDict would take None for anything.
            fine = value is not None
            if fine:
                section[name] = _tuples(value) if isinstance(section[name], tuple) else value
        except (TypeError, OverflowError, RecursionError):
            fine = False
        if not fine:
            raise UserError(f"the stored config has {prefix}{name}={_shown(value)}, not as in {section[name]!r}")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(x) for x in value) if isinstance(value, list) else value
