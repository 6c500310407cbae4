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
# Inside a package, and inside each of its wings, a file imports only files that stand before it.
ORDER = {
    "labelgen": [
        *("samples", "files", "images", "points", "superpixels", "clr", "prompts", "refine", "pretrained", "maskclip"),
        *("views", "codec", "chunks", "layout", "store", "verify", "suspicion", "label", "backbones", "training"),
        *("engines", "tagger", "generate", "probe"),
    ],
    "labelgen.training": ["order", "schedule", "processes", "checkpoints"],
    "evaluation": [
        *("scores", "confusion", "boundary", "tally", "comparison", "tables", "statistics"),
        *("regions", "overlay", "plots", "webpage", "report"),
    ],
    "segtrain": [
        *("carb", "augment", "data", "config", "batch", "objective", "online", "model", "trainer", "train"),
        *("predict", "relabel", "export"),
    ],
    "pipeline": [
        *("names", "progress", "runs", "datasets", "toy", "config", "suggestion", "stages"),
        *("explorer", "commands", "cli", "__main__"),
    ],
    "labelgen.engines": [
        *("engine", "hub", "things", "clip_es", "proxyclip", "network", "fit", "cam", "clims", "one_pixel"),
        *("painting", "detector", "sam", "grounded_sam", "sam3", "regions", "fusion", "table"),
    ],
    "labelgen.engines.one_pixel": [
        *("equations", "edges", "imaging", "semantics", "features", "representation", "refinement", "config"),
        *("fit", "engine"),
    ],
    "pipeline.datasets": [
        *("classes", "truth", "tags", "tag_noise", "derived_tags", "layouts", "hub", "registry"),
        *("check", "fetch"),
    ],
    "pipeline.stages": [
        *("run", "inspection", "tagging", "labels", "estimates", "diagnosis", "students", "sources", "scoring"),
        *("statistics", "reporting", "comparing", "ablation", "engines", "iteration", "whole", "tag_sweep"),
        *("prediction", "points", "doctor"),
    ],
    "pipeline.explorer": [
        *("pictures", "memory", "jobs", "moves", "words", "tags", "looking", "reproduction", "images", "masks"),
        *("ranking", "saving", "session", "app", "server"),
    ],
    "pipeline.commands": [
        *("options", "labels", "tags", "engines", "points", "datasets", "evaluation", "run", "explore", "doctor"),
    ],
    "pipeline.toy": ["canvas", "textures", "sprites", "scenes", "web", "pretrain"],
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            files = [alias.name for alias in node.names if ROOT.joinpath(*parts, f"{alias.name}.py").is_file()]
            found |= {f"{node.module}.{name}" for name in files} or {node.module}
    return found


def rooms(folder: Path) -> set[str]:
    """Names of the files and wings of a package."""
    wings = {path.name for path in folder.iterdir() if (path / "__init__.py").is_file()}
    return {path.stem for path in folder.glob("*.py")} - {"__init__"} | wings


def files(folder: Path, room: str) -> list[Path]:
    """The files of a room: one, or all of a wing."""
    wing = folder / room
    return sorted(wing.rglob("*.py")) if wing.is_dir() else [folder / f"{room}.py"]


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_know_only_those_below_them(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        siblings = {name.split(".")[0] for name in imports(path)} & set(ALLOWED) - {package}
        assert siblings <= ALLOWED[package], path


@pytest.mark.parametrize("package", ORDER)
def test_files_import_only_files_above_them(package: str) -> None:
    folder = ROOT.joinpath(*package.split("."))
    order = ORDER[package]
    assert rooms(folder) == set(order)
    for place, name in enumerate(order):
        for path in files(folder, name):
            known = {m.removeprefix(f"{package}.").split(".")[0] for m in imports(path) if m.startswith(f"{package}.")}
            within = {name} if (folder / name).is_dir() else set()  # a wing has an order of its own
            assert known <= {*order[:place], *within}, path
            assert package not in imports(path), f"{path}: what __init__ makes importable is for those outside"


def test_every_wing_has_an_order() -> None:
    wings = {
        str(p.parent.relative_to(ROOT)).replace("/", ".") for n in ALLOWED for p in (ROOT / n).rglob("__init__.py")
    }
    assert wings == set(ORDER)


def test_the_store_needs_no_torch() -> None:
    for name in ("samples", "images", "points", "prompts", "views", "codec", "chunks", "layout", "store", "verify"):
        heavy = {"torch", "transformers"} & {m.split(".")[0] for m in imports(ROOT / "labelgen" / f"{name}.py")}
        assert not heavy, name
