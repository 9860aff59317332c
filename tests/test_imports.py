"""The order of the package's rooms, read from the source: imports go down it; tensorflow stays in data/."""

import ast
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From the ground up. A room may import its own level and those before it.
LEVELS = (
    ("errors", "storage", "hub", "config"),
    ("models", "losses"),
    ("distributed", "data"),
    ("training", "evaluation", "weights"),
    ("tasks",),
    ("runs",),
    ("inference", "plan", "bench"),
    ("experiments",),
    ("report", "cli", "__main__"),  # cli/suite.py runs other commands by their names, through the table of commands
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
TENSORFLOW = {"tensorflow", "tensorflow_datasets"}
# Rooms that a trained model's user needs: they load where tensorflow is not installed.
WITHOUT_TENSORFLOW = ("models", "losses", "distributed", "training", "evaluation", "tasks", "inference")
# In data/, where tensorflow is at home, these do without it all the same.
FREE_OF_TENSORFLOW = (
    "data.text",
    "data.text_lengths",
    "data.image_files",
    "data.file_tree",
    "data.augment.kernels",
    "data.seeds",
    "data.columns",
)


class Imports(ast.NodeVisitor):
    """Imports of one module: (name, line, whether it is made when the module is loaded)."""

    def __init__(self, path: pathlib.Path):
        self.found = []
        self._depth = 0
        self.visit(ast.parse(path.read_text(encoding="utf-8"), path))

    def _function(self, node):
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_If(self, node):
        """What stands under `if TYPE_CHECKING` is never run."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._function(node)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found += [(alias.name, node.lineno, self._depth == 0) for alias in node.names]

    def visit_ImportFrom(self, node):
        assert node.level == 0, f"relative import in line {node.lineno}"
        # `from cbalign.data import text` imports a module, `from cbalign.errors import UserError` a name of one.
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            self.found.append((module if module in MODULES else node.module, node.lineno, self._depth == 0))


def name_of(path: pathlib.Path) -> str:
    """The dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "cbalign").rglob("*.py"))}
IMPORTS = {name: Imports(path).found for name, path in MODULES.items()}


def room(module: str) -> str:
    """The part of the package that a module is in, "" for the package itself; config.py and config_*.py are one."""
    part = (*module.split("."), "")[1]
    return "config" if part.startswith("config_") else part


def place(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{line}"


def own_imports(module: str):
    """Imports of the package's own modules. Those of the package's front, `cbalign/__init__.py`, are not held to the
    order: it offers by name, when asked, what stands above."""
    return [found for found in IMPORTS[module] if found[0].split(".")[0] == "cbalign" and room(module)]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    order, low, stack, result = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                result.append(sorted(component))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return result


def unknown_modules():
    return sorted(
        {
            f"{place(module, line)}: no module {name}"
            for module in MODULES
            for name, line, _ in IMPORTS[module]
            if name.split(".")[0] == "cbalign" and name not in MODULES
        }
    )


def upward_imports():
    return [
        f"{place(module, line)}: {room(module)} imports {name}"
        for module in MODULES
        for name, line, _ in own_imports(module)
        if room(name) and LEVEL_OF.get(room(module), -1) < LEVEL_OF.get(room(name), len(LEVELS))
    ]


def circles_of_modules():
    return [
        " <-> ".join(circle)
        for circle in circles(
            {module: {name for name, _, _ in own_imports(module) if name != module} for module in MODULES}
        )
    ]


def circles_of_rooms():
    graph = {}
    for module in MODULES:
        graph.setdefault(room(module), set()).update(
            room(name) for name, _, _ in own_imports(module) if room(name) not in ("", room(module))
        )
    return [" <-> ".join(circle) for circle in circles(graph)]


def tensorflow_outside_data():
    return [
        f"{place(module, line)}: imports {name}"
        for module in MODULES
        for name, line, _ in IMPORTS[module]
        if name.split(".")[0] in TENSORFLOW
        and (room(module) != "data" or module.removeprefix("cbalign.") in FREE_OF_TENSORFLOW)
    ]


def configs_below_tasks():
    """Rooms below tasks/ take named arguments: they do not import the config's module, nor take a `config`."""
    below = [module for module in MODULES if 0 < LEVEL_OF.get(room(module), 0) < LEVEL_OF["tasks"]]
    found = [
        f"{place(module, line)}: imports {name}"
        for module in below
        for name, line, _ in own_imports(module)
        if room(name) == "config"
    ]
    for module in below:
        if module.startswith(("cbalign.data.datasets.", "cbalign.weights.hub_files.")):
            continue  # there it is a term of TFDS's builders and of transformers' models
        nodes = ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        lines = [node.lineno for node in nodes if isinstance(node, ast.arg) and node.arg == "config"]
        found += [f"{place(module, line)}: has a parameter config" for line in lines]
    return found


def _is_task(node) -> bool:
    """Whether it reads as a task, or a config's name of one; `args.task` is a flag of the command line."""
    if isinstance(node, ast.Attribute):
        return node.attr == "task" and not (isinstance(node.value, ast.Name) and node.value.id == "args")
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "task"
    return isinstance(node, ast.Name) and node.id == "task"


def _has_strings(node) -> bool:
    """Whether it is a string, or a collection written out with strings."""
    elements = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return any(isinstance(element, ast.Constant) and isinstance(element.value, str) for element in elements)


def tasks_told_apart():
    """Outside tasks/, comparisons of a task with strings and questions about its attributes or class."""
    found = []
    for module, path in MODULES.items():
        if room(module) == "tasks":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                wrong = any(map(_is_task, sides)) and any(map(_has_strings, sides))
            elif isinstance(node, ast.Match):
                wrong = _is_task(node.subject)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                asks = node.func.id in ("hasattr", "isinstance") or (node.func.id == "getattr" and len(node.args) == 3)
                wrong = asks and _is_task(node.args[0])
            else:
                continue
            if wrong:
                found.append(f"{place(module, node.lineno)}: {ast.unparse(node).splitlines()[0]}")
    return found


CHECKS = (
    unknown_modules,
    upward_imports,
    circles_of_modules,
    circles_of_rooms,
    tensorflow_outside_data,
    configs_below_tasks,
    tasks_told_apart,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_order_of_the_rooms(check):
    found = check()
    assert not found, "\n".join(["", *found])


def test_every_room_has_its_level():
    assert {room(module) for module in MODULES} - {""} == set(LEVEL_OF)


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}
    assert circles(graph) == [["b", "c"], ["e", "f"]]


def load_without_tensorflow(modules) -> str:
    """Imports each module in a new process in which tensorflow is not to be had; returns what failed."""
    script = textwrap.dedent("""
        import importlib, sys
        for name in ("tensorflow", "tensorflow_datasets"):
            sys.modules[name] = None
        for module in sys.argv[1:]:
            try:
                importlib.import_module(module)
            except ImportError as error:
                print(f"{module}: {error}")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_starts_without_what_only_training_needs():
    script = """
        import sys
        from cbalign import inference
        encoder = inference.Encoder.of(inference.open_source("icons"))
        encoder.text("a truck")
        print(sorted({"transformers", "orbax", "optax", "numba", "tensorflow"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_rooms_load_without_tensorflow():
    modules = [module for module in MODULES if room(module) in WITHOUT_TENSORFLOW]
    free = [f"cbalign.{name}" for name in FREE_OF_TENSORFLOW]
    assert load_without_tensorflow(["cbalign", *modules, *free, "cbalign.runs.workdir"]) == ""
