"""Hugging Face folders of foundation models, tiny and with random weights, for the tests: real classes and processors.

`Model.from_pretrained` reads them as it reads those of the hub.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SIDE = 64  # of the models' square input
WORDS = [
    *("sky", "building", "pole", "road", "sidewalk", "tree", "sign", "symbol", "traffic", "light", "fence"),
    *("car", "pedestrian", "bicyclist"),
]


def bert_tokenizer() -> Any:
    """WordPiece, one token a word, with the ids that Grounding DINO takes for the ends of phrases."""
    from transformers import BertTokenizer

    vocabulary = [f"[unused{i}]" for i in range(1100)]
    for place, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}.items():
        vocabulary[place] = token
    return BertTokenizer(vocab={word: place for place, word in enumerate([*vocabulary, *WORDS])})


def save_detector(folder: Path, kind: str = "grounding-dino", max_text_len: int = 256) -> None:
    """A Grounding DINO, an MM Grounding DINO or an OWLv2."""
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        GroundingDinoProcessor,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessorPil,
        Owlv2Processor,
        SwinConfig,
    )

    from pipeline.toy.pretrain import build_tokenizer

    torch.manual_seed(0)
    if kind == "owlv2":
        tokenizer = build_tokenizer()
        small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        length = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
        config = Owlv2Config(
            text_config={**small, **ends, **length},
            vision_config={**small, "image_size": SIDE, "patch_size": 16},
            projection_dim=16,
        )
        Owlv2ForObjectDetection(config).save_pretrained(folder)
        images = Owlv2ImageProcessorPil(size={"height": SIDE, "width": SIDE})
        Owlv2Processor(images, tokenizer).save_pretrained(folder)
        return
    tokenizer = bert_tokenizer()
    is_mm = kind == "mm-grounding-dino"
    swin = SwinConfig(
        image_size=SIDE, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    small = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    dino = (MMGroundingDinoConfig if is_mm else GroundingDinoConfig)(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        max_text_len=max_text_len,
        **small,
    )
    (MMGroundingDinoForObjectDetection if is_mm else GroundingDinoForObjectDetection)(dino).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)


def save_sam(folder: Path, kind: str = "sam") -> None:
    """A SAM, a SAM-HQ or a SAM 2; the last without a processor of its own, which would need torchvision."""
    from transformers import (
        Sam2Config,
        Sam2Model,
        SamConfig,
        SamHQConfig,
        SamHQModel,
        SamHQProcessor,
        SamImageProcessorPil,
        SamModel,
        SamProcessor,
    )
    from transformers.image_processing_backends import PilBackend

    torch.manual_seed(0)
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_depth": 2, "iou_head_hidden_dim": 16}
    prompts = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    if kind == "sam2":
        hiera = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [SIDE, SIDE],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [4, 4],
        }
        vision = {
            "backbone_config": hiera,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[SIDE // stride] * 2 for stride in (4, 8, 16)],
            "fpn_hidden_size": 16,
        }
        sam2 = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
        Sam2Model(sam2).save_pretrained(folder)
        save_square_processor(folder, PilBackend)
        return
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "output_channels": 16,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 32,
        "num_pos_feats": 8,
    }
    prompts["image_embedding_size"] = SIDE // 16
    images = SamImageProcessorPil(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )
    if kind == "sam_hq":
        hq = SamHQConfig(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config={**decoder, "vit_dim": 16}
        )
        SamHQModel(hq).save_pretrained(folder)
        SamHQProcessor(images).save_pretrained(folder)
        return
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(folder)
    SamProcessor(images).save_pretrained(folder)


def save_square_processor(folder: Path, backend: Any) -> None:
    """What the processors of SAM 2 and SAM 3 write down."""
    half = [0.5] * 3
    backend(
        do_resize=True,
        size={"height": SIDE, "width": SIDE},
        resample=2,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=half,
        image_std=half,
    ).save_pretrained(folder)


def save_sam3(folder: Path) -> None:
    """A SAM 3, with the toy CLIP's tokenizer."""
    from transformers import Sam3Config, Sam3Model
    from transformers.image_processing_backends import PilBackend

    from pipeline.toy.pretrain import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    vit = {
        "model_type": "sam3_vit_model",
        **small,
        "num_hidden_layers": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 32,
    }
    vision = {
        "backbone_config": vit,
        "fpn_hidden_size": 16,
        "backbone_feature_sizes": [[SIDE // stride] * 2 for stride in (4, 8, 16)],
    }
    text = {
        "model_type": "clip_text_model",
        **small,
        "num_hidden_layers": 1,
        "projection_dim": 16,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    config = Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config={**small, "num_layers": 1},
        detr_encoder_config={**small, "num_layers": 1},
        detr_decoder_config={**small, "num_layers": 2, "num_queries": 6},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    Sam3Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_square_processor(folder, PilBackend)


def save_tagger(folder: Path, kind: str, labels: Sequence[str] = (), **settings: Any) -> None:
    """A siglip, a siglip2 of any shape, both with the toy CLIP's tokenizer; or a vit or resnet with labels."""
    from transformers import (
        ConvNextImageProcessorPil,
        ResNetConfig,
        ResNetForImageClassification,
        Siglip2Config,
        Siglip2ImageProcessorPil,
        Siglip2Model,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessorPil,
    )

    from pipeline.toy.pretrain import build_tokenizer

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if kind == "vit":
        ViTForImageClassification(ViTConfig(**small, image_size=32, patch_size=8, **settings)).save_pretrained(folder)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
        return
    if kind == "resnet":
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], **settings)
        ResNetForImageClassification(config).save_pretrained(folder)
        ConvNextImageProcessorPil(size={"shortest_edge": 224}).save_pretrained(folder)
        return
    tokenizer = build_tokenizer()
    text = {**small, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "projection_size": 16}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    if kind == "siglip":
        model = SiglipModel(SiglipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}))
        SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        vision = {**small, "num_patches": 16, "patch_size": 16}
        model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
        Siglip2ImageProcessorPil(patch_size=16, max_num_patches=16).save_pretrained(folder)
    with torch.no_grad():  # as trained ones have them; zeros at first
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
