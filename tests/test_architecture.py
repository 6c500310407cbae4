"""The direction of imports (DESIGN.md): packages know only those below them, files only those above them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "labelgen": set(),
    "evaluation": set(),
    "segtrain": {"labelgen"},
    "pipeline": {"labelgen", "evaluation", "segtrain"},
}
# Inside a package a file imports only files that stand before it.
ORDER = {
    "labelgen": [
        "samples",
        "images",
        "prompts",
        "refine",
        "maskclip",
        "views",
        "codec",
        "layout",
        "store",
        "verify",
        "label",
        "generate",
    ],
    "evaluation": [
        *("scores", "confusion", "boundary", "tally", "comparison", "tables", "statistics"),
        *("overlay", "plots", "report"),
    ],
    "segtrain": [
        *("carb", "augment", "data", "online", "backbones", "model", "schedule", "trainer", "train", "predict"),
        *("relabel", "export"),
    ],
    "pipeline": [
        "names",
        "tags",
        "tag_noise",
        "classes",
        "truth",
        "layouts",
        "hub",
        "datasets",
        "check",
        "toy",
        "config",
        "progress",
        "runs",
        "fetch",
        "inspection",
        "stages",
        "sources",
        "scoring",
        "comparing",
        "label_statistics",
        "tag_sweep",
        "reporting",
        "ablation",
        "prediction",
        "commands",
        "cli",
        "__main__",
    ],
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_know_only_those_below_them(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        siblings = {name.split(".")[0] for name in imports(path)} & set(ALLOWED) - {package}
        assert siblings <= ALLOWED[package], path


@pytest.mark.parametrize("package", ORDER)
def test_files_import_only_files_above_them(package: str) -> None:
    folders = {p.name for p in (ROOT / package).iterdir() if (p / "__init__.py").is_file()}
    order = ORDER[package]
    assert {p.stem for p in (ROOT / package).glob("*.py")} - {"__init__"} | folders == set(order)
    for place, name in enumerate(order):
        path = ROOT / package / f"{name}.py"
        own = {m.split(".")[1] for m in imports(path) if m.startswith(f"{package}.")} if path.is_file() else set()
        assert own <= set(order[:place]), path


def test_the_store_needs_no_torch() -> None:
    for name in ("samples", "images", "prompts", "views", "codec", "layout", "store", "verify"):
        heavy = {"torch", "transformers"} & {m.split(".")[0] for m in imports(ROOT / "labelgen" / f"{name}.py")}
        assert not heavy, name
