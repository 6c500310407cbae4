"""RunConfig: the stages' own settings in one tree, read from presets, a TOML file and --set a.b=c."""

import copy
import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from labelgen.clr import IterateConfig
from labelgen.engines.fusion import FusionConfig
from labelgen.engines.regions import RegionConfig
from labelgen.engines.table import EngineSettings
from labelgen.files import read_toml
from labelgen.generate import LabelConfig
from labelgen.samples import InputError
from labelgen.tagger import TaggerConfig
from pipeline.datasets.tags import TagConfig
from pipeline.names import look_up
from segtrain.augment import AugmentConfig
from segtrain.config import TrainConfig
from segtrain.model import StudentConfig

PRESETS = Path(__file__).parent / "presets"
# Other names of settings.
SHORT = {("labels", "proxy"): ("proxyclip", "proxy"), ("labels", "regions"): ("regions", "source")}
MOST = 1e12  # of any number; NaN and infinity are none
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunConfig(EngineSettings):  # type: ignore[misc]
    """Everything that decides the result of a run; and the settings of each engine, under its name."""

    tags: TagConfig = field(default_factory=TagConfig)
    tagger: TaggerConfig = field(default_factory=TaggerConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    iterate: IterateConfig = field(default_factory=IterateConfig)


def load_config(
    dataset: str,
    file: str | Path | None = None,
    settings: Iterable[str] = (),
    suggested: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The data set's preset, overridden by a TOML file, overridden by settings such as "train.steps=100".

    suggested: a tree of settings that stands in for the preset. Raises InputError that names the setting for an unknown
    name or a value of the wrong type or range.
    """
    preset = PRESETS / f"{dataset}.toml"
    tree: dict[str, Any] = copy.deepcopy(dict(suggested or {}))
    if suggested is None and preset.is_file():
        tree = _read_toml(preset)
    if file is not None:
        _merge(tree, _read_toml(Path(file)))
    for setting in settings:
        _merge(tree, _parse_setting(setting))
    for (section, name), (its_section, its_name) in SHORT.items():
        if name in tree.get(section, {}):
            tree.setdefault(its_section, {})[its_name] = tree[section].pop(name)
    return build(RunConfig, tree)


def build(cls: type[T], tree: Mapping[str, Any], prefix: str = "") -> T:
    """A (nested) settings dataclass from a tree of plain values."""
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in tree.items():
        hint = look_up(hints, name, f"setting in [{prefix.rstrip('.') or 'top level'}]")
        values[name] = _convert(value, hint, prefix + name)
    return cls(**values)


def as_tree(config: Any) -> dict[str, Any]:
    """The resolved settings, ready for JSON."""
    return dataclasses.asdict(config)


def _convert(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast("type[Any]", hint), value, name + ".")
    if origin in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), name)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise InputError(f"{name} must be one of {', '.join(map(str, arguments))}, got {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise InputError(f"{name} needs {len(arguments)} values, got {value!r}")
        return tuple(_convert(item, arguments[0], name) for item in value)
    if type(value) in (int, float) and not abs(value) <= MOST:
        raise InputError(f"{name} must be a number between {-MOST:g} and {MOST:g}, got {value}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        wanted = "list, such as [1.0, 2.0]" if origin is tuple else getattr(hint, "__name__", str(hint))
        raise InputError(f"{name} must be of type {wanted}, got {value!r}")
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError as error:
        raise InputError(f"no configuration file {path}") from error


def _parse_setting(setting: str) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set takes NAME=VALUE, such as train.steps=100, got {setting!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # a bare word is a string
    for name in reversed(key.split(".")):
        value = {name: value}
    return typing.cast("dict[str, Any]", value)


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value
