"""Processors of Hugging Face models: what stands between images or words and a model."""

from typing import Any

from labelgen.pretrained import NO_CODE
from labelgen.samples import InputError


def load_processor(loader: Any, path_or_hub_id: str, kind: str, *parts: str) -> Any:
    """A processor by a HF class such as AutoProcessor, with the named parts. Raises InputError where one is missing."""
    try:
        processor = loader.from_pretrained(path_or_hub_id, **NO_CODE)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and others
        raise _incomplete(path_or_hub_id, kind) from error
    if not all(getattr(processor, part, None) for part in parts):
        raise _incomplete(path_or_hub_id, kind)
    return processor


def load_square_processor(path_or_hub_id: str, kind: str, side: int) -> Any:
    """An image processor that resizes to a square and normalises: what SAM 2 and SAM 3 have.

    Theirs in transformers need torchvision; this is the library's plain one for PIL, with the settings that the model's
    folder holds. side: of the square that the model was built for. Raises InputError.
    """
    from transformers.image_processing_backends import PilBackend

    processor = load_processor(PilBackend, path_or_hub_id, kind)
    processor.size = {"height": side, "width": side}
    return processor


def load_tokenizer(path_or_hub_id: str, kind: str) -> Any:
    """What turns words into a model's tokens. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    tokenizer = load_processor(AutoTokenizer, path_or_hub_id, kind)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes one up for a folder without files
        raise _incomplete(path_or_hub_id, kind)
    return tokenizer


def _incomplete(path_or_hub_id: str, kind: str) -> InputError:
    return InputError(
        f"{kind} {path_or_hub_id!r} has no whole processor; its folder needs processor_config.json (or "
        "preprocessor_config.json) and, where the model reads words, its tokenizer's files"
    )
