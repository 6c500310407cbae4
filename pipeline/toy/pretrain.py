"""Pretrain the tiny CLIP that ships with carbseg, on procedurally drawn "web" pictures with captions.

    python -m pipeline.toy.pretrain --out pipeline/toy/clip

Shapes: B pictures, T texts, N patches, D embedding, C classes.
"""

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from labelgen.images import CLIP_MEAN, CLIP_STD, normalise
from labelgen.maskclip import DenseCLIP
from labelgen.prompts import TEMPLATES, sentences
from pipeline.toy.canvas import ToyClass
from pipeline.toy.scenes import driving_scene
from pipeline.toy.web import SYNONYMS, WebImage, caption, street_photos, web_image

CONTEXT = 32  # tokens a caption may have
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")
MONITOR_SEED = 7  # driving scenes that only watch the training; no data set split uses them
PHOTOS_PER_STREET = 4
COLLAGES = {2: (40, 48, 64), 4: (24, 32, 40)}  # pictures a side: pixels that a picture may be high and wide
MIN_SIMILARITY_SCALE, MAX_SIMILARITY_SCALE = 1.0, 50.0


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """What decides the result; the same values give the same weights on the same machine."""

    images: int = 60_000
    streets: float = 0.12  # share of the pictures that are cut out of street scenes
    image_px: int = 80
    steps: int = 3_200
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    keep_patches: float = 0.6  # share of patches kept in 80 % of the steps: faster, and harder
    focus: float = 10.0  # how sharply a caption picks its patches
    texts_per_class: int = 6  # short captions of one class each, that patches are contrasted with
    collages: float = 0.6  # share of steps that show many pictures in one: patches learn to keep to their own place
    unknown_words: float = 0.03  # share of caption words replaced by <unk>, so that new words do no harm
    seed: int = 0


def draw_corpus(config: PretrainConfig, processes: int) -> tuple[NDArray[np.uint8], list[Any]]:
    """Pictures (images, px, px, 3) and, for each, the classes its caption names."""
    chunk = 500
    jobs = [(config, start, min(chunk, config.images - start)) for start in range(0, config.images, chunk)]
    pictures, named = [], []
    with (
        ProcessPoolExecutor(processes) as pool,
        click.progressbar(pool.map(_draw_chunk, jobs), length=len(jobs), label="drawing web pictures") as chunks,
    ):
        for some_pictures, some_named in chunks:
            pictures.append(some_pictures)
            named += some_named
    return np.concatenate(pictures), named


def _draw_chunk(job: tuple[PretrainConfig, int, int]) -> tuple[NDArray[np.uint8], list[Any]]:
    config, start, count = job
    rng = np.random.default_rng([config.seed, start])
    drawn: list[WebImage] = []
    while len(drawn) < round(count * config.streets):
        drawn += street_photos([config.seed, start, len(drawn)], PHOTOS_PER_STREET, config.image_px)
    drawn = drawn[:count] + [web_image(rng, config.image_px) for _ in range(count - len(drawn))]
    return np.stack([d.image_HW3 for d in drawn]), [d.named for d in drawn]


def build_tokenizer() -> Any:
    """One token a word: the words of the templates and of the classes' names."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Whitespace()
    texts = [*TEMPLATES, *(name for names in SYNONYMS.values() for name in names), "a , and"]
    words = dict.fromkeys(w for t in texts for w, _ in splitter.pre_tokenize_str(t.lower().replace("{}", "")))
    tokenizer: Any = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *words])}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=CONTEXT,
    )


def build_model(vocabulary: int) -> Any:
    """A CLIPModel of 1.6 M parameters: 3 vision blocks of width 192, patch 8; 2 text blocks of width 96."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": vocabulary,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "hidden_act": "gelu",
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 3,
        "hidden_act": "gelu",
        "num_attention_heads": 6,
        "image_size": 64,
        "patch_size": 8,
    }
    # Eager attention trains 1.6 times as fast as SDPA at this size on a CPU.
    config: Any = CLIPConfig
    return CLIPModel(config(text_config=text, vision_config=vision, projection_dim=128, attn_implementation="eager"))


def embed_pictures(model: Any, pixels_B3HW: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Unit vectors of the whole picture (B, D), from the CLS token, and of its patches (B, N, D), in MaskCLIP mode.

    keep: indices (B, n) of the patches that are shown, or None for all.
    """
    vision = model.vision_model
    x = vision.embeddings(pixels_B3HW, interpolate_pos_encoding=True)
    if keep is not None:
        tokens = F.pad(keep + 1, (1, 0))  # the CLS token stays
        x = x.gather(1, tokens[..., None].expand(-1, -1, x.shape[-1]))
    x = vision.pre_layrnorm(x)
    *blocks, last = vision.encoder.layers
    for block in blocks:
        x = block(x, attention_mask=None)
    # Only the CLS token attends in the last block; the patches keep their own values, as in MaskCLIP.
    attention, y = last.self_attn, last.layer_norm1(x)
    value = attention.v_proj(y)
    query_key_value = (attention.q_proj(y[:, :1]), attention.k_proj(y), value)
    query, key, mixed = (t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in query_key_value)
    pooled = F.scaled_dot_product_attention(query, key, mixed).transpose(1, 2).flatten(2)
    z = x + attention.out_proj(torch.cat([pooled, value[:, 1:]], 1))
    z = z + last.mlp(last.layer_norm2(z))
    z = F.normalize(model.visual_projection(vision.post_layernorm(z)).float(), dim=-1)
    return z[:, 0], z[:, 1:]


def embed_texts(model: Any, ids_TL: Tensor) -> Tensor:
    """Unit vectors (T, D) of tokenized texts."""
    pooled = model.text_model(input_ids=ids_TL, attention_mask=(ids_TL != 0).long()).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def contrast(scores_BT: Tensor, matches_BT: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, where a picture may match several texts and a text several pictures."""
    to_texts = matches_BT / matches_BT.sum(1, keepdim=True).clamp(min=1)
    to_pictures = matches_BT / matches_BT.sum(0, keepdim=True).clamp(min=1)
    per_picture = -(to_texts * scores_BT.log_softmax(1)).sum() / scores_BT.shape[0]
    per_text = -(to_pictures * scores_BT.log_softmax(0)).sum() / scores_BT.shape[1]
    return (per_picture + per_text) / 2


def caption_scores(similarity_BNT: Tensor, focus: float) -> Tensor:
    """How well each text describes some part of each picture (B, T): patches weighted by their own similarity."""
    return (similarity_BNT * (focus * similarity_BNT).softmax(1)).sum(1)


def collage(pixels_B3hw: Tensor, side: int) -> Tensor:
    """Pictures in a square of `side` x `side`: (B, 3, h, w) -> (B / side^2, 3, side h, side w)."""
    B, _, h, w = pixels_B3hw.shape
    tiles = pixels_B3hw.view(B // side**2, side, side, 3, h, w).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(B // side**2, 3, side * h, side * w)


def cut_collage(patches_GND: Tensor, side: int, h: int, w: int) -> Tensor:
    """The patches of each picture of a collage: (G, N, D) -> (G side^2, h w, D), where a picture has h x w patches."""
    G, _, D = patches_GND.shape
    return patches_GND.view(G, side, h, side, w, D).permute(0, 1, 3, 2, 4, 5).reshape(G * side**2, h * w, D)


class Trainer:
    """The tiny CLIP, its tokenizer and one training step."""

    def __init__(self, config: PretrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.rng = np.random.default_rng([config.seed, 1])
        self.tokenizer = build_tokenizer()
        self.model = build_model(len(self.tokenizer))
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        # One text a (class, name, template): what the patches are contrasted with.
        single = [(c, text) for c in ToyClass for text in sentences([SYNONYMS[c]])[0]]
        self.single_ids = self._tokenize([text for _, text in single])
        self.single_class = np.array([c for c, _ in single])

    def step(self, number: int, pictures_B: NDArray[np.uint8], named: list[tuple[ToyClass, ...]]) -> dict[str, float]:
        """One update; returns the losses."""
        config, rng = self.config, self.rng
        progress = number / config.steps
        cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1, (number + 1) / config.warmup_steps) * cosine
        names_BC = torch.zeros(len(named), len(ToyClass))
        for row, classes in enumerate(named):
            names_BC[row, list(classes)] = 1
        of_class = [np.flatnonzero(self.single_class == c) for c in ToyClass]
        chosen = np.concatenate([rng.choice(texts, config.texts_per_class, replace=False) for texts in of_class])
        scale = self.model.logit_scale.exp().clamp(MIN_SIMILARITY_SCALE, MAX_SIMILARITY_SCALE)
        if rng.random() < config.collages:
            side = int(rng.choice(list(COLLAGES)))
            tiles = augment(rng, pictures_B, COLLAGES[side])
            _, patches_GND = embed_pictures(self.model, collage(tiles, side), None)
            patches_BND = cut_collage(patches_GND, side, tiles.shape[2] // 8, tiles.shape[3] // 8)
            text_TD = embed_texts(self.model, self._forget_words(self.single_ids[chosen]))
            whole_loss = torch.zeros(())
        else:
            pixels = augment(rng, pictures_B, sides=(48, 64, 64))
            whole_BD, patches_BND = embed_pictures(self.model, pixels, self._keep(pixels))
            captions = self._tokenize([caption(rng, classes, list(TEMPLATES)) for classes in named])
            text_TD = embed_texts(self.model, self._forget_words(torch.cat([captions, self.single_ids[chosen]])))
            same_names = (names_BC[:, None] == names_BC[None]).all(-1).float()
            whole_loss = contrast(scale * whole_BD @ text_TD[: len(named)].T, same_names)
            text_TD = text_TD[len(named) :]
        similarity_BNT = patches_BND @ text_TD.T
        matches_BT = names_BC[:, self.single_class[chosen]]
        patch_loss = contrast(scale * caption_scores(similarity_BNT, config.focus), matches_BT)
        loss = whole_loss + patch_loss
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {
            "whole": whole_loss.item(),
            "patch": patch_loss.item(),
            "scale": scale.item(),
        }

    def _keep(self, pixels_B3HW: Tensor) -> Tensor | None:
        """Which patches are shown: a random share of them in 80 % of the steps."""
        if self.rng.random() < 0.2:
            return None
        patches = (pixels_B3HW.shape[2] // 8) * (pixels_B3HW.shape[3] // 8)
        order = torch.from_numpy(self.rng.random((len(pixels_B3HW), patches)).argsort(1))
        return order[:, : int(patches * self.config.keep_patches)].sort(1).values

    def _tokenize(self, texts: list[str]) -> Tensor:
        ids: Tensor = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
        )["input_ids"]
        return ids

    def _forget_words(self, ids_TL: Tensor) -> Tensor:
        word = ids_TL >= len(SPECIAL)
        forgotten = torch.from_numpy(self.rng.random(ids_TL.shape) < self.config.unknown_words)
        return ids_TL.masked_fill(word & forgotten, 1)[:, : int((ids_TL != 0).sum(1).max())]


def augment(rng: np.random.Generator, pictures_BHW3: NDArray[np.uint8], sides: tuple[int, ...]) -> Tensor:
    """Random crop, flip, size (height and width are drawn from `sides`), brightness; normalised pixels (B, 3, H, W)."""
    px = pictures_BHW3.shape[1]
    size = [int(rng.choice(sides)) for _ in range(2)]
    pixels = torch.from_numpy(pictures_BHW3).permute(0, 3, 1, 2).float()
    views = []
    for group in pixels.chunk(4):
        share = math.sqrt(rng.uniform(0.7, 1))
        h, w = (int(px * share * rng.uniform(0.9, 1)) for _ in range(2))
        y, x = rng.integers(0, px + 1 - h), rng.integers(0, px + 1 - w)
        view = group[:, :, y : y + h, x : x + w]
        views.append(F.interpolate(view.flip(-1) if rng.random() < 0.5 else view, size=size, mode="bilinear"))
    batch = torch.cat(views)
    light = torch.from_numpy(
        rng.uniform(0.85, 1.15, (len(batch), 1, 1, 1)) * rng.uniform(0.94, 1.06, (len(batch), 3, 1, 1))
    )
    batch = (batch * light.float()).clamp(0, 255) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (batch - mean) / std


def batches(count: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless shuffled indices, every picture once an epoch."""
    rng = np.random.default_rng([seed, 2])
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield np.sort(order[start : start + batch])


def monitor(model: Any, tokenizer: Any, scenes: int = 24) -> str:
    """IoU (%) of dense labels, filtered by the classes present, on scenes of no split."""
    dense = DenseCLIP(model, tokenizer)
    text_CD = dense.encode_text(sentences([SYNONYMS[c] for c in ToyClass]))
    counts = np.zeros((len(ToyClass), len(ToyClass)), np.int64)
    for k in range(scenes):
        image_HW3, label_HW = driving_scene([MONITOR_SEED, k])
        pixels = torch.from_numpy(normalise(image_HW3))[None]
        logits = F.interpolate(dense.logits(pixels, text_CD), size=label_HW.shape, mode="bilinear")[0]
        absent = np.setdiff1d(np.arange(len(ToyClass)), label_HW)
        logits[torch.from_numpy(absent)] = -math.inf
        np.add.at(counts, (label_HW.ravel(), logits.argmax(0).numpy().ravel()), 1)
    model.requires_grad_(True).train()
    hits = np.diag(counts)
    iou = 100 * hits / (counts.sum(0) + counts.sum(1) - hits)
    return f"mIoU {iou.mean():.1f} | " + " ".join(f"{c.name.lower()} {iou[c]:.0f}" for c in ToyClass)


def save_pretrained(model: Any, tokenizer: Any, folder: Path) -> None:
    """A folder like that of any CLIP on the hub: model, tokenizer and image processor."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessor: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    preprocessor |= {"do_resize": False, "do_center_crop": False, "size": {"shortest_edge": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the model to.")
@click.option("--images", default=PretrainConfig.images, help="Web pictures to draw.")
@click.option("--streets", default=PretrainConfig.streets, help="Share of pictures cut out of street scenes.")
@click.option("--steps", default=PretrainConfig.steps, help="Training steps.")
@click.option("--focus", default=PretrainConfig.focus, help="How sharply a caption picks its patches.")
@click.option("--collages", default=PretrainConfig.collages, help="Share of steps that show many pictures in one.")
@click.option("--seed", default=PretrainConfig.seed, help="Seed of pictures, weights and order.")
@click.option("--processes", default=2, help="Processes that draw, and threads that train.")
def main(
    out: Path,
    images: int,
    streets: float,
    steps: int,
    focus: float,
    collages: float,
    seed: int,
    processes: int,
) -> None:
    """Draw web pictures with captions, pretrain the tiny CLIP on them, save it as a HF CLIPModel folder."""
    config = PretrainConfig(images=images, streets=streets, steps=steps, focus=focus, collages=collages, seed=seed)
    torch.set_num_threads(processes)
    started = time.monotonic()
    pictures, named = draw_corpus(config, processes)
    click.echo(f"{len(pictures)} pictures in {time.monotonic() - started:.0f} s")
    trainer, order = Trainer(config), batches(len(pictures), config.batch, config.seed)
    trainer.model.train()
    for number in range(config.steps):
        index = next(order)
        losses = trainer.step(number, pictures[index], [named[i] for i in index])
        if (number + 1) % 500 == 0 or number + 1 == config.steps:
            shown = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
            click.echo(
                f"{number + 1} {time.monotonic() - started:.0f}s {shown} | {monitor(trainer.model, trainer.tokenizer)}"
            )
    save_pretrained(trainer.model.half(), trainer.tokenizer, out)
    (out / "pretraining.json").write_text(json.dumps(asdict(config), indent=2) + "\n")


if __name__ == "__main__":
    main()
