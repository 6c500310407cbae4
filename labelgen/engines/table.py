"""The table of label engines: a new one is a file beside this one, and a row here."""

from dataclasses import asdict, field, make_dataclass
from typing import Any

from labelgen.engines import cam, clims, clip_es, grounded_sam, proxyclip, sam3
from labelgen.engines.engine import EngineSpec
from labelgen.engines.one_pixel.engine import ENGINE as ONE_PIXEL
from labelgen.label import Labeller


def section(name: str) -> str:
    """What an engine's settings are called: clip_es for clip-es."""
    return name.replace("-", "_")


ENGINES: dict[str, EngineSpec] = {
    "maskclip": EngineSpec(
        about="CLIP's patches, compared with the words for each class; what CARB uses (Zhou et al., ECCV 2022)",
        needs="CLIP",
        cost="one pass of CLIP for each view",
        begin=lambda inputs: Labeller(inputs.dense, inputs.batch),
        is_dense=True,
    ),
    "proxyclip": proxyclip.ENGINE,
    "clip-es": clip_es.ENGINE,
    "cam": cam.ENGINE,
    "clims": clims.ENGINE,
    "one-pixel": ONE_PIXEL,
    "grounded-sam": grounded_sam.ENGINE,
    "sam3": sam3.ENGINE,
}
# Each engine's settings under its own name: --set clip_es.confidence=0.9.
EngineSettings: Any = make_dataclass(
    "EngineSettings",
    [
        (section(name), spec.settings, field(default_factory=spec.settings))
        for name, spec in ENGINES.items()
        if spec.settings is not None
    ],
    frozen=True,
    kw_only=True,
)


def settings_of(config: Any, name: str) -> dict[str, Any]:
    """An engine's own settings that change what it says, of a configuration that holds those of all; for provenance."""
    if name not in ENGINES:  # two in one
        parts = {section(part): settings_of(config, part) for part in name.split("+")}
        return {"fusion": asdict(config.fusion)} | parts
    if ENGINES[name].settings is None:
        return {}
    own = getattr(config, section(name))
    return {setting: value for setting, value in asdict(own).items() if setting not in getattr(own, "speed_only", ())}
