"""The rules of the house that can be read off the source: who imports whom, and where a device may be named."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Imports go from a line to the lines above it; within a line the packages do not know each other.
LAYERS = [
    {"errors"},
    {"config", "devices", "launched", "phase", "signals"},
    {"environment"},
    {"chem"},
    {"types"},
    {"geometry"},
    {"structure", "flow", "ops"},
    {"files"},
    {"data", "blocks"},
    {"model"},
    {"losses", "sampling", "evaluation"},
    {"estimate", "report"},
    {"training"},
    {"bench", "legacy", "sweep"},
    {"cli"},
    {"__main__", "train", "infer"},  # train.py and infer.py at the top among them
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
NO_FRAMEWORK = ("ops", "blocks")
FRAMEWORKS = ("hydra", "lightning", "pytorch_lightning")
NAMES_DEVICES = ("app/devices.py",)


@dataclass(frozen=True)
class Import:
    module: str  # dotted, absolute
    local: bool  # inside a function
    line: int


def files() -> list[Path]:
    scripts = [path for name in ("train.py", "infer.py") if (path := ROOT / name).exists()]
    return sorted((ROOT / "app").rglob("*.py")) + scripts


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(module: str) -> str:
    """The layer's name: app.flow.tokens -> flow, app -> "", train -> train."""
    parts = module.split(".")
    return parts[0] if parts[0] != "app" else (parts[1] if len(parts) > 1 else "")


def imports(file: Path) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, local: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, local, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.extend(Import(name, local, child.lineno) for name in _from(file, child))
            visit(child, local or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(file.read_text()), local=False)
    return found


def _from(file: Path, node: ast.ImportFrom) -> Iterator[str]:
    """`from app import flow` names app.flow: every imported name is taken as a module of its own as well."""
    base = node.module or ""
    if node.level:
        here = module_of(file).split(".")
        here = here if file.stem == "__init__" else here[:-1]
        above = here[: len(here) - node.level + 1]
        base = ".".join([*above, *filter(None, [node.module])])
    for alias in node.names:
        yield f"{base}.{alias.name}"


def where(file: Path, found: Import) -> str:
    return f"{file.relative_to(ROOT)}:{found.line} imports {found.module}"


def ours(module: str) -> bool:
    return module.split(".")[0] in ("app", "train", "infer")


def forbidden(file: Path, found: Import) -> bool:
    """Whether the import goes against the layers."""
    importer, imported = package(module_of(file)), package(found.module)
    if importer == imported or imported not in RANK:  # within a package; or app itself (its version)
        return False
    reaches_up_to_legacy = file.relative_to(ROOT).as_posix() == "app/training/checkpoint.py" and imported == "legacy"
    if reaches_up_to_legacy:
        return not found.local
    return importer == "" or RANK[imported] >= RANK[importer]


def test_every_package_has_its_layer():
    names = {package(module_of(file)) for file in files()} - {""}
    assert names <= RANK.keys(), f"give {names - RANK.keys()} a place in LAYERS"


def test_imports_go_one_way():
    wrong = [where(f, found) for f in files() for found in imports(f) if ours(found.module) and forbidden(f, found)]
    assert not wrong, "\n".join(wrong)


def test_ops_and_blocks_know_neither_hydra_nor_lightning():
    """Neither directly nor through what they import."""
    by_module = {module_of(file): file for file in files()}
    seen = {module for module in by_module if package(module) in NO_FRAMEWORK}
    queue, wrong = list(seen), []
    while queue:
        file = by_module[queue.pop()]
        for found in imports(file):
            if found.module.split(".")[0] in FRAMEWORKS:
                wrong.append(where(file, found))
            parts = found.module.split(".")
            reached = {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & by_module.keys()
            queue.extend(reached - seen)
            seen |= reached
    assert not wrong, "\n".join(wrong)


def test_no_device_is_named_outside_its_place():
    """A literal "cuda" where autocast, a device or a branch is meant goes wrong on every other machine."""
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno} says {node.value!r}"
        for file in files()
        if file.relative_to(ROOT).as_posix() not in NAMES_DEVICES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value == "cuda" or node.value.startswith("cuda:")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "module", "local", "refused"),
    [
        ("app/flow/tokens.py", "app.geometry.so3", False, False),
        ("app/flow/tokens.py", "app.config.validate", False, False),
        ("app/flow/tokens.py", "app.structure.read", False, True),
        ("app/flow/tokens.py", "app.model", True, True),
        ("app/chem/atoms.py", "app.types.Protein", False, True),
        ("app/config/diff.py", "app.errors.UserError", False, False),
        ("app/config/diff.py", "app.chem", False, True),
        ("app/training/checkpoint.py", "app.legacy.multiflow", True, False),
        ("app/training/checkpoint.py", "app.legacy.multiflow", False, True),
        ("app/training/module.py", "app.legacy.multiflow", True, True),
        ("train.py", "app.training", False, False),
        ("app/legacy/multiflow.py", "train", False, True),
    ],
)
def test_the_judge_itself(file, module, local, refused):
    assert forbidden(ROOT / file, Import(module, local, 1)) is refused
