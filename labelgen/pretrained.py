"""Hugging Face models as data: safetensors only, finite numbers only, and no code of theirs is run."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelgen.samples import InputError

if TYPE_CHECKING:
    from torch import Tensor

NO_CODE = {"trust_remote_code": False}  # the default asks at the terminal, and runs it on a yes
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Layers are built one by one, before weights tell that there are none for them.
COUNTS_LAYERS = re.compile("layers|depth|blocks|stages|levels|rates")
MOST_LAYERS = 1000


def load_model(loader: Any, path_or_hub_id: str | Path, **options: Any) -> Any:
    """The model of a HF class such as CLIPModel. options: of its from_pretrained.

    Raises InputError for pickled, NaN or infinite weights and for absurd settings; and, for files that are missing or
    broken, transformers', safetensors', torch's and json's own errors.
    """
    from transformers import PretrainedConfig

    folder = Path(path_or_hub_id)
    pickled = next((path for pattern in PICKLED for path in sorted(folder.glob(pattern))), None)
    if pickled is not None and not any(folder.glob("*.safetensors")):
        name, place = getattr(loader, "__name__", "AutoModel"), str(folder)
        raise InputError(
            f"{pickled} is a pickle, which may run code when it is opened; if you trust it, convert it in Python: "
            f"transformers.{name}.from_pretrained({place!r}).save_pretrained({place!r})"
        )
    settings, _ = PretrainedConfig.get_config_dict(str(path_or_hub_id))
    _require_few_layers(settings, f"config.json of {path_or_hub_id}")
    model = loader.from_pretrained(str(path_or_hub_id), use_safetensors=True, **NO_CODE, **options)
    require_finite(model.named_parameters(), path_or_hub_id)
    return model


def require_finite(weights: Iterable[tuple[str, "Tensor"]], source: str | Path) -> None:
    """Raise InputError for a tensor that holds NaN or infinity, by its name."""
    broken = next((name for name, weight in weights if not weight.isfinite().all()), None)
    if broken is not None:
        raise InputError(f"the weights of {source} hold NaN or infinity ({broken}); get the files again")


def _require_few_layers(settings: Any, where: str, key: str = "") -> None:
    """Raise InputError for a number of layers that nobody trained."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            _require_few_layers(value, where, str(name))
    elif isinstance(settings, list):
        if COUNTS_LAYERS.search(key) and len(settings) > MOST_LAYERS:
            raise InputError(f"{where} holds {len(settings)} {key}; {MOST_LAYERS} is the most")
        for value in settings:
            _require_few_layers(value, where, key)
    elif isinstance(settings, int | float) and COUNTS_LAYERS.search(key) and not settings <= MOST_LAYERS:
        raise InputError(f"{where} says {key} = {settings}; {MOST_LAYERS} is the most")
