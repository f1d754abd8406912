"""Small originals of the published models: their own library's code, with random weights.

Each is written in the layout of its public file. The catalogue's entry is reduced to the same size,
so that the loader takes the way of the full-size model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import open_clip
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dplq.clip import layouts
from dplq.models.catalogue import PublishedModel
from tests.peers import peer

SMALL = {
    "embed_dim": 24,
    "vision_cfg": {
        **{"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
    },
    "text_cfg": {"width": 16, "heads": 2, "layers": 2},
}


@dataclass
class Original:
    """A small model in its own library.

    Attributes:
        content: what its public file holds, as `torch.save` or safetensors take it.
        changes: fields of the catalogue's entry that make it as small.
        image: features of normalised images (B, 3, h, w).
        text: the same of token ids; None for an encoder.
        tokens: ids for `text`; None: texts are tokenised.
        patches: dictionaries whose items are replaced for the test, with the new items.
    """

    content: Mapping[str, Any]
    changes: dict[str, Any]
    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor] | None = None
    tokens: Tensor | None = None
    patches: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a file in the format that its suffix stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: value.clone().contiguous() for key, value in content.items()}, path)
    else:
        torch.save(dict(content), path)


def shaken(model: nn.Module, seed: int = 0) -> Any:
    """Return a model in eval mode whose parameters and statistics are all random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.ndim:
                noise = torch.randn(value.shape, generator=generator)
                is_variance = name.endswith("running_var")
                value.copy_(noise.abs() + 0.5 if is_variance else value + 0.1 * noise)
    return model.eval()


def saved(model: Any, folder: Path) -> dict[str, Tensor]:
    """Return the tensors that a model of transformers writes, by the keys of its public files."""
    model.save_pretrained(folder / "saved")
    return load_file(folder / "saved/model.safetensors")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dicts merged."""
    result = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result


def open_clip_vit(model: PublishedModel, folder: Path) -> Original:
    """A plain ViT CLIP in open_clip's layout."""
    quick = model.activation == "quickgelu"
    clip = shaken(open_clip.CLIP(**SMALL, quick_gelu=quick))
    return Original(clip.state_dict(), {"config": SMALL}, clip.encode_image, clip.encode_text)


def open_clip_training(model: PublishedModel, folder: Path) -> Original:
    """The same in a training checkpoint of several GPUs, with optimizer and scaler."""
    found = open_clip_vit(model, folder)
    state = {f"module.{key}": value for key, value in found.content.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-9}]}
    found.content = {
        **{"epoch": 20, "name": "run", "state_dict": state, "optimizer": optimizer},
        "scaler": {"scale": 65536.0},
    }
    return found


def openai_clip(model: PublishedModel, folder: Path) -> Original:
    """The same as OpenAI's own class saves it: with its numbers, attention mask in no key."""
    found = open_clip_vit(model, folder)
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    found.content = {
        **{key: torch.tensor(value) for key, value in numbers.items()},
        **found.content,
    }
    return found


def transformers_clip(model: PublishedModel, folder: Path) -> Original:
    """The same in transformers, whose towers pack nothing."""
    act = "quick_gelu" if model.activation == "quickgelu" else "gelu"
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act}
    clip = shaken(
        transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={"hidden_size": 16, "intermediate_size": 64, **tower},
                vision_config={
                    **{"hidden_size": 32, "intermediate_size": 128, **tower},
                    **{"image_size": 32, "patch_size": 16},
                },
                projection_dim=24,
            )
        )
    )
    positions = {  # buffers that older versions saved
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    return Original(
        {**saved(clip, folder), **positions},
        {"config": SMALL},
        lambda images: pooled(clip.get_image_features(pixel_values=images)),
        lambda tokens: pooled(clip.get_text_features(input_ids=tokens)),
    )


def resnet(model: PublishedModel, folder: Path) -> Original:
    """A ResNet CLIP in open_clip's layout."""
    changes = merged(SMALL, {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8}})
    changes["vision_cfg"] |= {"patch_size": None, "image_size": 64}
    clip = shaken(open_clip.CLIP(**changes, quick_gelu=model.activation == "quickgelu"))
    return Original(clip.state_dict(), {"config": changes}, clip.encode_image, clip.encode_text)


def bert_clip(model: PublishedModel, folder: Path, vision: Mapping[str, Any]) -> Original:
    """A CLIP of open_clip whose text tower is a BERT of transformers."""
    bert = {"model_type": "bert", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64}
    bert |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(bert))
    text = {**model.config["text_cfg"], "hf_model_name": str(folder), "context_length": 12}
    config = {"embed_dim": 24, "vision_cfg": dict(vision), "text_cfg": text}
    quick = model.activation == "quickgelu"
    plain = {**config, "text_cfg": {**text, "hf_model_pretrained": False}}
    clip = shaken(open_clip.CustomTextCLIP(**plain, quick_gelu=quick))
    tokens = torch.tensor([[2, 11, 12, 13, 3, 0, 0, 0], [2, 21, 22, 23, 24, 25, 26, 3]])
    return Original(
        *(clip.state_dict(), {"config": config}, clip.encode_image, clip.encode_text),
        tokens=tokens,
    )


def biomedclip(model: PublishedModel, folder: Path) -> Original:
    """BiomedCLIP: timm's ViT beside a BERT, in open_clip's layout."""
    vision = {**model.config["vision_cfg"], "timm_model_name": "test_vit", "image_size": 160}
    found = bert_clip(model, folder / "bert", vision)
    positions = torch.arange(64)[None]  # saved by the transformers of its time
    found.content = {**found.content, "text.transformer.embeddings.position_ids": positions}
    return found


def unimed_clip(model: PublishedModel, folder: Path) -> Original:
    """UniMed-CLIP: open_clip's ViT beside a BERT; a training checkpoint with numpy's numbers."""
    found = bert_clip(model, folder / "bert", SMALL["vision_cfg"])
    renamed = {re.sub("^text[.]", "text_encoder.", k): v for k, v in found.content.items()}
    found.content = {
        "epoch": 10,
        "state_dict": {f"module.{key}": value for key, value in renamed.items()},
        "best_acc1": np.float64(61.63),
    }
    return found


def siglip(model: PublishedModel, folder: Path) -> Original:
    """MedSigLIP in transformers; the small trunk is in timm's registry for the time of the test."""
    tower = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {**tower, "intermediate_size": 100, "vocab_size": 300}
    vision = {**tower, "intermediate_size": 64, "image_size": 64, "patch_size": 16}
    config = {"model_type": "siglip", "text_config": text, "vision_config": vision}
    clip = shaken(
        transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    )
    return Original(
        *(saved(clip, folder), {"config": config, "image_size": 64}),
        lambda images: pooled(clip.get_image_features(pixel_values=images)),
        lambda tokens: pooled(clip.get_text_features(input_ids=tokens)),
        tokens=torch.randint(2, 300, (3, 64)),
    )


def conch(model: PublishedModel, folder: Path) -> Original:
    """CONCH in its authors' repository; skipped without a checkout."""
    sys.path.insert(0, str(peer("CONCH")))
    try:
        from conch.open_clip_custom.coca_model import CoCa
    finally:
        del sys.path[0]
    text = {"width": 32, "heads": 4, "layers": 2, "vocab_size": 300, "embed_cls": True}
    own = {**text, "context_length": 16, "output_tokens": True}
    sizes = {"width": 32, "layers": 3, "num_heads": 4, "image_size": 32, "patch_size": 16}
    pools = {"attentional_pool_contrast": True, "attentional_pool_caption": True}
    original = CoCa(
        embed_dim=16,
        embed_dim_caption=24,
        vision_cfg={**sizes, **pools, "n_queries_caption": 4, "output_tokens": True},
        text_cfg=own,
        multimodal_cfg={**own, "output_tokens": False},
    )
    with torch.no_grad():  # some tensors are left as they were allocated
        for parameter in original.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1:].numel() ** 0.5)
    original.eval()

    def small_test_conch(num_classes: int, global_pool: str, **options: Any) -> nn.Module:
        arguments = {"num_classes": num_classes, "global_pool": global_pool, "img_size": 32}
        vit = {"embed_dim": 32, "depth": 3, "num_heads": 4}
        return timm.create_model("vit_base_patch16_224", **arguments, **vit)

    vision = {**layouts.conch.CONFIG["vision_cfg"], "image_size": 32}
    config = {
        "embed_dim": 16,
        "vision_cfg": {**vision, "timm_model_name": "small_test_conch"},
        "text_cfg": {**text, "context_length": 15},
    }
    tokens = torch.randint(1, 300, (2, 15))
    tokens[1, 6:] = 0
    entrypoints = timm.models._registry._model_entrypoints
    return Original(
        *(original.state_dict(), {"image_size": 32}),
        lambda images: original.encode_image(images, normalize=False),
        lambda tokens: original.encode_text(nn.functional.pad(tokens, (0, 1)), normalize=False),
        tokens=tokens,
        patches=(
            (entrypoints, {"small_test_conch": small_test_conch}),
            (layouts.conch.CONFIG, config),
        ),
    )


def pooled(output: Any) -> Tensor:
    """Return the features of transformers, which newer versions wrap."""
    return output if isinstance(output, Tensor) else output.pooler_output


Maker = Callable[[PublishedModel, Path], Original]
LAYOUTS: dict[str, Maker] = {
    "open_clip": open_clip_vit,
    "open_clip training checkpoint": open_clip_training,
    "OpenAI CLIP": openai_clip,
    "transformers CLIPModel": transformers_clip,
    "transformers SiglipModel": siglip,
    "UniMed-CLIP training checkpoint": unimed_clip,
    "CONCH": conch,
}
SPECIAL: dict[str, Maker] = {  # by name, where the layout does not tell the kind of towers
    "remoteclip-rn50": resnet,
    "biomedclip": biomedclip,
    "quiltnet-b-16-pmb": biomedclip,
}


def make_original(name: str, model: PublishedModel, folder: Path) -> Original:
    """Return a small original of a model of the catalogue.

    Args:
        name: of the catalogue.
        model: its entry.
        folder: for files that must outlive the call.
    """
    return (SPECIAL.get(name) or LAYOUTS[model.layout])(model, folder)


def small(model: PublishedModel, original: Original) -> PublishedModel:
    """Return the catalogue's entry, reduced to the size of its original."""
    changes = dict(original.changes)
    if "config" in changes and "model_type" not in model.config:
        changes["config"] = merged(model.config, changes["config"])
    return msgspec.structs.replace(model, **changes)
