"""The rules of the house, read from the syntax tree of every file of ``src``.

Each rule is a function from source to complaints. It is applied to the whole house, and to a few
lines that break it, so that the rule itself is known to bite.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
FLOORS = [
    {"core"},
    {"text", "numbers"},
    {"requests"},
    {"data"},
    {"lm"},
    {"engine"},
    {"methods", "guards", "metrics", "attacks", "benchmarks"},
    {"audit"},
    {"report"},
    {"api"},
    {"lab", "serve"},
    {"cli"},
    {"__main__"},
    {"testing"},
]
COMPONENTS = FLOORS[6]
PROMISED_UPWARD = {("audit", "expunge.report"), ("audit", "expunge.api")}
"""``audit.to_html(path)`` and the call ``expunge.audit(...)`` are promised; both look the room up
when they are called."""
WITHOUT_TORCH = ("core", "text", "numbers", "requests", "report", "cli")
THE_WRITER = "expunge.core.atomic"
WRITING_MODE = re.compile(r"[rbt]*[wax+][wax+rbt]*")

Rule = Callable[[str, ast.Module], Iterator[str]]


def files() -> dict[str, Path]:
    """Module name -> file, of everything in ``src``."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def complaints(rule: Rule) -> list[str]:
    """What ``rule`` finds in the house, each with its file."""
    return [
        f"{path.relative_to(SOURCE)}: {complaint}"
        for module, path in files().items()
        for complaint in rule(module, ast.parse(path.read_bytes()))
    ]


def broken_by(rule: Rule, module: str, source: str) -> bool:
    return bool(list(rule(module, ast.parse(source))))


def called(node: ast.AST) -> str:
    """The dotted name a call calls; empty for anything else."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


# ----------------------------------------------------------------------------------- imports


def imported(module: str, tree: ast.Module) -> Iterator[str]:
    """Full names of all that ``module`` imports from the house, wherever in the file."""
    is_package = module in PACKAGES
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if is_package else module.rpartition(".")[0]
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif called(node).split(".")[-1] in ("import_module", "__import__"):
            argument = node.args[0] if isinstance(node, ast.Call) and node.args else None
            if isinstance(argument, ast.Constant):
                yield str(argument.value)


PACKAGES = {name for name, path in files().items() if path.name == "__init__.py"}


def room(module: str) -> str:
    """The room a module is in; empty for the front door and for everything outside."""
    parts = module.split(".")
    known = set().union(*FLOORS)
    return parts[1] if parts[0] == "expunge" and len(parts) > 1 and parts[1] in known else ""


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def upward(module: str, tree: ast.Module) -> Iterator[str]:
    """Imports of a room that comes after the module's own."""
    if module == "expunge":
        return  # the front door shows every room, lazily
    for name in imported(module, tree):
        if name.split(".")[0] != "expunge":
            continue
        here, there = room(module), room(name)
        if not there:
            yield f"imports {name}, which is the front door or no room"
        elif (here, name) in PROMISED_UPWARD and is_looked_up(name, tree):
            continue
        elif here != there and floor(there) >= floor(here):
            yield f"{here} imports {name}"


def is_looked_up(name: str, tree: ast.Module) -> bool:
    """Whether ``name`` is imported by a call in a function, so that no import loop arises."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return any(
        called(node).endswith("import_module") and ast.unparse(node).endswith(f"({name!r})")
        for function in functions
        for node in ast.walk(function)
    )


def sideways(module: str, tree: ast.Module) -> Iterator[str]:
    """Imports of one component by another."""
    if room(module) not in COMPONENTS:
        return
    own = ".".join(module.split(".")[:3])
    for name in imported(module, tree):
        if room(name) in COMPONENTS and name != own and not name.startswith(own + "."):
            yield f"component imports {name}"


def test_every_room_is_on_a_floor() -> None:
    rooms = {name.split(".")[1] for name in files() if "." in name}
    assert rooms <= set().union(*FLOORS)


@pytest.mark.parametrize("rule", [upward, sideways])
def test_no_import_goes_up_or_sideways(rule: Rule) -> None:
    assert complaints(rule) == []


@pytest.mark.parametrize(
    ("module", "source", "breaks"),
    [
        ("expunge.core.x", "from expunge.text import match", True),
        ("expunge.core.x", "def f():\n    import expunge.lm.load", True),
        ("expunge.lm.x", "from expunge.engine.mean import Mean", True),
        ("expunge.lm.x", "from ..engine import mean", True),
        (
            "expunge.audit.x",
            "from importlib import import_module\nimport_module('expunge.cli')",
            True,
        ),
        ("expunge.cli.x", "from expunge.testing import worlds", True),
        ("expunge.cli.x", "from expunge import testing", True),
        ("expunge.lm.x", "from expunge import audit", True),
        ("expunge.lm.x", "import expunge", True),
        ("expunge.lab.x", "from expunge.serve import gateway", True),
        ("expunge.audit.x", "import expunge.report", True),
        ("expunge.audit.x", "def f():\n    import_module('expunge.report')", False),
        ("expunge.lm.x", "def f():\n    import_module('expunge.report')", True),
        ("expunge.lm.x", "from expunge.lm.load import load", False),
        ("expunge.lm.x", "from . import load", False),
        ("expunge.engine.x", "import expunge.core.errors, torch", False),
        ("expunge.testing.x", "from expunge.cli import main", False),
        ("expunge", "from expunge.cli import main", False),
    ],
)
def test_the_rule_of_floors_bites(module: str, source: str, breaks: bool) -> None:
    assert broken_by(upward, module, source) is breaks


@pytest.mark.parametrize(
    ("module", "source", "breaks"),
    [
        ("expunge.methods.npo", "from expunge.methods.ga import forget", True),
        ("expunge.methods.npo", "from . import ga", True),
        ("expunge.attacks.mia", "from expunge.metrics.min_k import compute", True),
        ("expunge.methods.big.core", "from expunge.methods.big.parts import x", False),
        ("expunge.methods.npo", "from expunge.engine.mean import Mean", False),
        ("expunge.audit.run", "from expunge.metrics.min_k import compute", False),
    ],
)
def test_the_rule_of_components_bites(module: str, source: str, breaks: bool) -> None:
    assert broken_by(sideways, module, source) is breaks


ALONE = """
import os, sys
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        __import__(module)
        heavy = sorted({"torch", "transformers"} & set(sys.modules))
        if heavy:
            print(module, "loads", *heavy, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(module, "cannot be imported alone", flush=True)
"""


def heavy_when_alone(*modules: str, path: str = "") -> str:
    """Which of ``modules`` load torch, each imported by a process that has imported nothing."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *modules],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return done.stdout + done.stderr


def test_the_light_rooms_load_no_torch() -> None:
    light = [name for name in files() if name == "expunge" or room(name) in WITHOUT_TORCH]
    light = [name for name in light if not name.endswith("__main__")]
    assert len(light) > 10
    assert heavy_when_alone(*light) == ""


def test_the_rule_of_light_rooms_bites(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "heavy.py").write_text("import torch")
    assert heavy_when_alone("json", "heavy", path=str(tmp_path)) == "heavy loads torch\n"
    assert "cannot be imported alone" in heavy_when_alone("no_such_module")


# ------------------------------------------------------------------------- files and execution


def writes(module: str, tree: ast.Module) -> Iterator[str]:
    """Files written past the one writer."""
    excused = sheltered(tree)
    for node in ast.walk(tree):
        if module == THE_WRITER or not isinstance(node, ast.Call) or node in excused:
            continue
        name = called(node)
        last = name.split(".")[-1]
        is_method = last in ("write_text", "write_bytes") and name not in (last, f"atomic.{last}")
        if is_method or name in ("torch.save", "json.dump"):
            yield f"line {node.lineno}: {name}"
        elif last in ("open", "fdopen") and name != "os.open" and not only_reads(node):
            yield f"line {node.lineno}: {name} for writing"


def sheltered(tree: ast.Module) -> set[ast.AST]:
    """Calls that write to what the one writer handed out, and will put in its place."""
    found: set[ast.AST] = set()
    for block in ast.walk(tree):
        if not isinstance(block, ast.With):
            continue
        handed_out = {
            item.optional_vars.id
            for item in block.items
            if called(item.context_expr).split(".")[-1] in ("replacing", "new_folder")
            and isinstance(item.optional_vars, ast.Name)
        }
        for node in ast.walk(block):
            if isinstance(node, ast.Call) and handed_out & names(node.func, *node.args[:1]):
                found.add(node)
    return found


def names(*nodes: ast.AST) -> set[str]:
    """All plain names in ``nodes``."""
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}


def only_reads(node: ast.Call) -> bool:
    """Whether a call of ``open``, or of a method of that name, names no mode that writes."""
    is_builtin = called(node) in ("open", "io.open", "os.fdopen")
    modes = [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
    modes += node.args[1:2] if is_builtin else node.args[:2]
    literal = [str(mode.value) for mode in modes if isinstance(mode, ast.Constant)]
    is_known = len(literal) == len(modes) or not is_builtin
    return is_known and not any(WRITING_MODE.fullmatch(mode) for mode in literal)


DANGEROUS_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
DANGEROUS_CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
DANGEROUS_OPTIONS = {"trust_remote_code": True, "allow_pickle": True, "weights_only": False}


def dangers(module: str, tree: ast.Module) -> Iterator[str]:
    """What can run code out of a file or a text."""
    for name in imported(module, tree):
        if name.split(".")[0] in DANGEROUS_MODULES:
            yield f"imports {name}"
        if name in DANGEROUS_CALLS:
            yield f"imports {name}"
    for node in ast.walk(tree):
        if called(node) in DANGEROUS_CALLS:
            yield f"{called(node)}(...)"
        for option, value in options(node):
            if option in DANGEROUS_OPTIONS and value is DANGEROUS_OPTIONS[option]:
                yield f"{option}={value}"


def options(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Names and literal values of a call's keywords, or of a dictionary to be unpacked into one."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            yield keyword.arg or "", getattr(keyword.value, "value", None)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            yield str(getattr(key, "value", "")), getattr(value, "value", None)


def prints(module: str, tree: ast.Module) -> Iterator[str]:
    """Printing outside the command line."""
    for node in ast.walk(tree):
        if room(module) != "cli" and called(node) == "print":
            yield "print(...)"


@pytest.mark.parametrize("rule", [writes, dangers, prints])
def test_nobody_writes_runs_or_prints_past_the_doors(rule: Rule) -> None:
    assert complaints(rule) == []


@pytest.mark.parametrize(
    ("rule", "source", "breaks"),
    [
        (writes, "open(p, 'w')", True),
        (writes, "open(p, mode='ab')", True),
        (writes, "open(p, mode)", True),
        (writes, "p.open('r+')", True),
        (writes, "io.open(p, 'wb')", True),
        (writes, "tarfile.open(p, 'w')", True),
        (writes, "Path(p).write_text('x')", True),
        (writes, "p.write_bytes(b'x')", True),
        (writes, "torch.save(x, p)", True),
        (writes, "json.dump(x, handle)", True),
        (writes, "with replacing(p) as t, open(p, 'wb') as f: f.write(x)", True),
        (writes, "with replacing(p) as t, open(t, 'wb') as f: f.write(x)", False),
        (writes, "with atomic.new_folder(p) as t:\n    (t / 'x').write_text('x')", False),
        (writes, "with replacing(p) as t:\n    pass\nopen(t, 'wb')", True),
        (writes, "open(p)\nopen(p, 'rb')\np.open()\np.open('r')\nimage.open(p)", False),
        (writes, "write_text(p, 'x')\natomic.write_bytes(p, b'x')\njson.dumps(x)", False),
        (writes, "save_file(tensors, p)\nmodel.save_pretrained(folder)", False),
        (dangers, "import pickle", True),
        (dangers, "from joblib import load", True),
        (dangers, "torch.load(p, weights_only=True)", True),
        (dangers, "from torch import load", True),
        (dangers, "yaml.load(t)", True),
        (dangers, "eval('1')", True),
        (dangers, "exec(code)", True),
        (dangers, "f(trust_remote_code=True)", True),
        (dangers, "f(**{'trust_remote_code': True})", True),
        (dangers, "np.load(p, allow_pickle=True)", True),
        (dangers, "model.eval()\nf(trust_remote_code=False)\nyaml.safe_load(t)", False),
        (prints, "print('x')", True),
        (prints, "console.print('x')", False),
    ],
)
def test_the_rules_of_doors_bite(rule: Rule, source: str, breaks: bool) -> None:
    assert broken_by(rule, "expunge.lm.x", source) is breaks


def test_the_writer_and_the_command_line_are_the_doors() -> None:
    assert not broken_by(writes, THE_WRITER, "open(p, 'w')")
    assert not broken_by(prints, "expunge.cli.main", "print('x')")


# ---------------------------------------------------------------------------- size and words


def sizes(module: str, tree: ast.Module) -> Iterator[str]:
    """Functions one cannot take in at a glance."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > 80:
                yield f"{node.name} has {lines} lines"


def silence(module: str, tree: ast.Module) -> Iterator[str]:
    """Public modules, classes, functions and methods without a docstring."""
    if tree.body and not ast.get_docstring(tree):
        yield "no docstring"
    scopes: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    for prefix, body in scopes:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            decorators = [ast.unparse(one) for one in node.decorator_list]
            again = any(one.endswith(("overload", ".setter", "override")) for one in decorators)
            if node.name.startswith("_") or again:
                continue
            if not ast.get_docstring(node):
                yield f"{prefix}{node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node.body))


@pytest.mark.parametrize("rule", [sizes, silence])
def test_everything_is_short_and_explained(rule: Rule) -> None:
    assert complaints(rule) == []


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in files().items()}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


@pytest.mark.parametrize(
    ("rule", "source", "breaks"),
    [
        (sizes, "def f():\n" + "    x = 1\n" * 80, True),
        (sizes, "def f():\n" + "    x = 1\n" * 79, False),
        (silence, "x = 1", True),
        (silence, '"""Doc."""\ndef f(): pass', True),
        (silence, '"""Doc."""\nclass A:\n    """Doc."""\n    def f(self): pass', True),
        (silence, '"""Doc."""\ndef _f(): pass\nclass _A:\n    def f(self): pass', False),
        (silence, '"""Doc."""\nclass A:\n    """Doc."""\n    def __len__(self): pass', False),
        (silence, "", False),
    ],
)
def test_the_rules_of_size_and_words_bite(rule: Rule, source: str, breaks: bool) -> None:
    assert broken_by(rule, "expunge.lm.x", source) is breaks
