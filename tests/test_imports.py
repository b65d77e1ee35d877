"""The picture of the house stays true: imports point one way, pure parts touch no machine."""

import ast
import functools
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanochat_jax"

# Each row may import itself and the rows above.
LAYERS = (
    (
        "_rustbpe",
        "cpu_process",
        "files",
        "gpu_process",
        "locks",
        "results",
        "stopping",
        "texts",
    ),  # fmt: skip
    ("config",),
    ("devices", "hosts", "leftovers"),
    ("tokenizer",),
    ("tasks",),
    ("data",),
    ("demo", "identity"),
    ("models",),
    ("kernels", "sharding"),
    ("checkpoint",),
    ("serve",),
    ("evals",),
    ("train",),
    ("aot",),
    ("interop", "plan", "report"),
    ("pipeline",),
    ("speedrun",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}

# Values in, values out: no files, clocks, logs, and nothing that belongs to the shell around them.
PURE = (
    "config/decoding.py",
    "config/gpt.py",
    "config/inherit.py",
    "config/mesh.py",
    "config/optim.py",
    "config/scaling.py",
    "config/stages.py",
    "config/values.py",
    "data/batch.py",
    "data/packing.py",
    "evals/core/batches.py",
    "evals/core/prompts.py",
    "evals/core/shapes.py",
    "evals/shares.py",
    "cpu_process.py",
    "gpu_process.py",
    "hosts/launchers.py",
    "interop/eras.py",
    "interop/names.py",
    "interop/optim_files.py",
    "models",
    "serve/engine/calculator.py",
    "report/charts.py",
    "report/markdown.py",
    "report/score_table.py",
    "report/text.py",
    "results.py",
    "serve/engine/adjust.py",
    "serve/engine/decode.py",
    "serve/engine/requests.py",
    "serve/engine/rows.py",
    "serve/engine/sampling.py",
    "serve/engine/slots.py",
    "serve/engine/tool_calls.py",
    "serve/engine/prompt.py",
    "serve/engine/tools.py",
    "tasks/choice.py",
    "tasks/task.py",
    "tokenizer/chat_format.py",
    "train/muon.py",
    "train/optimizer.py",
    "train/rl_loss.py",
    "train/schedules.py",
    "train/step.py",
)
NOT_IN_PURE = {"os", "time", "logging", "pathlib", "grain", "tyro", "fastapi"}


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, not relative"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def house(names: set[str]) -> set[str]:
    """The parts of the house among `names`: `nanochat_jax.data.shards` lies in `data`."""
    return {name.split(".")[1] for name in names if name.startswith("nanochat_jax.")}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
assert all((PACKAGE / name).exists() for name in PURE), "a pure file has another name now"
PURE_FILES = [path for path in FILES if name_of(path).startswith(PURE)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    assert part(path) in RANK, f"give {part(path)} its place in LAYERS"
    for other in house(imports(path)):
        assert RANK[other] <= RANK[part(path)], f"{part(path)} must not import {other}"


def test_the_package_never_imports_the_scripts():
    assert not [p for p in FILES if any(n.split(".")[0] == "scripts" for n in imports(p))]


def test_only_models_import_linen():
    users = {part(p) for p in FILES if any(n.startswith("flax.linen") for n in imports(p))}
    assert users <= {"models"}


def test_config_and_tokenizer_start_without_jax():
    quick = [p for p in FILES if part(p) in ("config", "tokenizer")]
    roots = {n.split(".")[0] for n in itertools.chain.from_iterable(map(imports, quick))}
    assert not roots & {"jax", "flax", "optax", "orbax", "grain"}


@pytest.mark.parametrize("path", PURE_FILES, ids=name_of)
def test_pure_modules_touch_no_machine(path):
    assert not {name.split(".")[0] for name in imports(path)} & NOT_IN_PURE
    assert "default_backend" not in path.read_text(encoding="utf-8"), "the shell asks the backend"


def test_every_name_imported_from_the_package_exists():
    """Also in files that no quick test imports: programs, benchmarks, what only a GPU runs."""
    users = [*FILES, *(p for d in ("bench", "scripts", "tests") for p in (ROOT / d).rglob("*.py"))]
    missing = {
        f"{user.relative_to(ROOT)}: {name}"
        for user in users
        for name in imports(user)
        if name.startswith("nanochat_jax.") and not exists(name)
    }
    assert not missing


def exists(name: str) -> bool:
    """Whether a module of that name is there, or its parent defines what it is called."""
    path = ROOT / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists() or path.name == "_rustbpe":
        return True
    parent, last = path.parent, path.name
    source = parent / "__init__.py" if parent.is_dir() else parent.with_suffix(".py")
    return source.exists() and last in defined(source)


@functools.cache
def defined(source: Path) -> set[str]:
    """What a module binds, at its top or below."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
