"""What CLIP says of an image in other words, to the bit that a store would keep of it. Needs torch.

Shapes: C classes, P sentences, T texts (the classes, or the sentences about them), D embedding, h w CLIP grid.
"""

import threading
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.codec import DTYPES, decode, encode
from labelgen.generate import LabelConfig, weights_hash
from labelgen.label import Labeller, Prepared, prepare
from labelgen.maskclip import DenseCLIP, compare
from labelgen.prompts import Sentence, class_weights, spell_out
from labelgen.samples import InputError, Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore, average_zooms
from pipeline.config import build
from pipeline.explorer.memory import Memory
from pipeline.explorer.words import Words
from pipeline.stages.labels import load_dense
from pipeline.stages.run import Run

REMEMBERED = 4  # images whose features are kept
FEWEST = 16  # sentences at once: the products of very few are rounded in another way than those of many
Features = tuple[Prepared, list[NDArray[np.float32]]]  # an image without its pixels, and (D, h, w) of each of its views


def label_config(store: PseudoLabelStore) -> LabelConfig:
    """The settings that a store was made with. Raises InputError for a store that CLIP did not make."""
    settings = dict(store.provenance["labels"])
    if "round_before" in settings:
        raise InputError(f"{store.path} holds a student's predictions: explore the run that they were made from")
    del settings["templates"]
    settings["engine"] = store.provenance.get("engine", {}).get("name", LabelConfig.engine)
    return build(LabelConfig, settings, "labels.")


class Looker:
    """CLIP as it made a store. It looks at an image once; other words are a product with its features."""

    def __init__(self, dense: DenseCLIP, store: PseudoLabelStore) -> None:
        """Raises InputError for another CLIP than the store's."""
        if weights_hash(dense) != store.provenance["clip"]["weights_sha256"]:
            raise InputError(f"this is not the CLIP that made {store.path}; name that one with --clip")
        self._dense, self._store, self._config = dense, store, label_config(store)
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._seen = Memory[Features](REMEMBERED)
        self._one_at_a_time = threading.Lock()
        self.share: float | None = None  # of the image that it looks at now

    @classmethod
    def load(cls, run: Run, store: PseudoLabelStore, sample: Sample) -> "Looker":
        """The run's CLIP in the settings of the store. Raises InputError."""
        config = replace(run.config, labels=label_config(store))
        return cls(load_dense(replace(run, config=config), sample), store)

    def look(self, sample: Sample, words: Words, *, remember: bool = True) -> ImageLogits:
        """Logits of the classes, all zooms averaged, as they would be read from a store that was made in these words.

        remember: whether the image will be asked about again.
        """
        said, vectors_PD = self.encode(words)
        weights_CP = class_weights(said, vectors_PD, len(words.names))
        text_TD = torch.from_numpy(vectors_PD if self._config.per_prompt else weights_CP @ vectors_PD)
        memory = self._seen if remember else Memory[Features](1)
        image, features = memory.get(sample["image_id"], lambda: self._look(sample))
        if image.size != self._store.size(image.image_id):
            raise InputError(f"{sample['image_path']} has changed since its labels were made; make them again")
        maps = [self._kept(compare(torch.from_numpy(view_Dhw)[None], text_TD)[0].numpy()) for view_Dhw in features]
        if self._config.per_prompt:
            maps = [np.tensordot(weights_CP, map_Phw, 1) for map_Phw in maps]
        wholes = len(self._config.views.global_zooms)
        seen = zip(image.views[wholes:], maps[wholes:], strict=True)
        return ImageLogits(
            image_id=image.image_id,
            size=image.size,
            image_labels=(),
            global_logits=[average_zooms(maps[:wholes])],
            local_views=[LocalView(view.box, view.zoom, logits_Chw) for view, logits_Chw in seen],
        )

    def _look(self, sample: Sample) -> Features:
        image = prepare(sample, self._config.views, self._dense.patch_px)
        axes_DD = torch.eye(self._dense.model.config.projection_dim, device=self._dense.device)
        with self._one_at_a_time:
            try:
                # CLIP compares by products: what it says of the axes of its space are the features themselves.
                (features,) = Labeller(self._dense).ask([image], axes_DD).logits(self._on_share)
            finally:
                self.share = None
        return replace(image, pixels_HW3=[]), features

    def _on_share(self, share: float) -> None:
        self.share = share

    def encode(self, words: Words) -> tuple[list[Sentence], NDArray[np.float32]]:
        """The sentences, and their unit vectors (P, D); each is encoded once."""
        said = spell_out(words.names, words.templates)
        texts = [str(sentence) for sentence in said]
        with self._one_at_a_time:
            new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
            if new:
                batch = [*new, *texts][: max(len(new), FEWEST)]
                self._vectors |= dict(zip(batch, self._dense.encode_sentences(batch).cpu().numpy(), strict=True))
        return said, np.stack([self._vectors[text] for text in texts])

    def unknown_words(self, names: Iterable[str]) -> list[str]:
        """Words in these names that CLIP does not know."""
        return self._dense.unknown_words(names)

    def _kept(self, logits_Thw: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is left of a map when it has been in a store."""
        stored_Thw, value_range = encode(logits_Thw, DTYPES[self._config.precision])
        return decode(stored_Thw, np.array(value_range, np.float32))
