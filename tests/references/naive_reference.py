"""The forward pass of docs/method.md, written as plainly as possible, regardless of speed.

The library is tested against this file, so it shares no code with it: all 77 positions, a Python
loop over the images, deep prompts put in place by concatenation, and every quaternion product
multiplied out component by component instead of through an assembled real matrix.

Learnable tensors come as a dict. Their names (n context tokens, depth J, text and vision widths
d_t and d_v, feature width d_f; m and o are a quarter of a quaternion layer's input and output):

    ctx (n, d_t)                                  c
    deep_text.{l} (n, d_t), l = 0..J-2            p_{l+1}
    meta_net.0.weight, .0.bias, .2.weight, .2.bias
    vision_proj.weight (d_v, d_t), .bias          the layer-0 vision projection
    language.{r,i,j,k} (m, o), language.bias      Q_t
    vision.{l}.{r,i,j,k,bias}, l = 0..J-2         Q_{l+1}
    language.gain, vision.{l}.gain ()             residual only
    deep_vision.{l} (n, d_v)                      residual only: p'_{l+1}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

META_NET_HIDDEN = 32


def hamilton(a: Tensor, b: Tensor) -> Tensor:
    """Multiply quaternions, `a` on the left (docs/method.md, "Quaternion linear layer").

    Args:
        a: (..., 4), components r, i, j, k.
        b: (..., 4), broadcastable with `a`.

    Returns:
        (..., 4), the products a b.
    """
    ar, ai, aj, ak = a.unbind(-1)
    br, bi, bj, bk = b.unbind(-1)
    return torch.stack(
        [
            ar * br - ai * bi - aj * bj - ak * bk,
            ai * br + ar * bi - ak * bj + aj * bk,
            aj * br + ak * bi + ar * bj - ai * bk,
            ak * br - aj * bi + ai * bj + ar * bk,
        ],
        dim=-1,
    )


def quaternion_linear(state: dict[str, Tensor], layer: str, vector: Tensor) -> Tensor:
    """Apply quaternion layer `layer` of `state` to one vector (4m,), giving (4o,).

    Output quaternion number o is the sum over m of weight[m, o] times input quaternion m.
    """
    weight = torch.stack([state[f"{layer}.{axis}"] for axis in "rijk"], dim=-1)  # (m, o, 4)
    quaternions = torch.stack(vector.chunk(4), dim=-1)  # (m, 4)
    products = hamilton(weight, quaternions[:, None, :])  # (m, o, 4)
    summed = products.sum(dim=0)  # (o, 4)
    return torch.cat(summed.unbind(-1)) + state[f"{layer}.bias"]


def fuse(
    state: dict[str, Tensor], layer: str, prompt: Tensor, domain: Tensor, fusion: str
) -> Tensor:
    """Combine a prompt (n, d_t) and a domain signal (d_t,) in quaternion layer `layer`.

    Returns:
        (n, width of the layer's output).
    """
    rows = []
    for token in prompt:
        zeros = torch.zeros_like(token)
        if fusion == "sum":
            axes = [zeros, token + domain]  # [0 | z]: r = i = 0, z fills j and k
        elif fusion == "axes":
            axes = [token, domain, zeros, zeros]
        else:
            raise ValueError(f"fusion is {fusion!r}; expected 'sum' or 'axes'")
        rows.append(quaternion_linear(state, layer, torch.cat(axes)))
    return torch.stack(rows)


def run_block(block: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run one transformer block of open_clip on x (N, L, width)."""
    if block.attn.batch_first:
        return block(x, attn_mask=mask)
    return block(x.transpose(0, 1), attn_mask=mask).transpose(0, 1)


def text_features(clip: nn.Module, token_ids: Tensor, context: Tensor, deep: list[Tensor]):
    """Prompted text tower for one image.

    Args:
        clip: an open_clip CLIP.
        token_ids: (K, 77) full prompts; positions 1..n are overwritten by the context.
        context: (n, d_t), this image's language prompt.
        deep: prompts (n, d_t) that replace positions 1..n before layers 1, 2, ...

    Returns:
        (K, d), not normalised.
    """
    n = context.shape[0]
    classes = token_ids.shape[0]
    words = clip.token_embedding(token_ids)
    x = torch.cat([words[:, :1], context.expand(classes, -1, -1), words[:, 1 + n :]], dim=1)
    x = x + clip.positional_embedding
    for layer, block in enumerate(clip.transformer.resblocks):
        if 1 <= layer <= len(deep):
            prompt = deep[layer - 1].expand(classes, -1, -1)
            x = torch.cat([x[:, :1], prompt, x[:, 1 + n :]], dim=1)
        x = run_block(block, x, clip.attn_mask)
    x = clip.ln_final(x)
    end_of_text = token_ids.argmax(dim=-1)
    return x[torch.arange(classes), end_of_text] @ clip.text_projection


def image_feature(clip: nn.Module, image: Tensor, prompt: Tensor, deep: list[Tensor]) -> Tensor:
    """Prompted vision tower for one image.

    Args:
        clip: an open_clip CLIP with a ViT.
        image: (3, H, W).
        prompt: (n, d_v), appended after the class and patch tokens.
        deep: prompts (n, d_v) that replace the last n tokens before layers 1, 2, ...

    Returns:
        (d,), not normalised.
    """
    visual = clip.visual
    patches = visual.conv1(image[None]).flatten(2).transpose(1, 2)  # (1, patches, d_v)
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), patches], dim=1)
    x = x + visual.positional_embedding
    own_tokens = x.shape[1]
    x = visual.ln_pre(torch.cat([x, prompt[None]], dim=1))
    for layer, block in enumerate(visual.transformer.resblocks):
        if 1 <= layer <= len(deep):
            x = torch.cat([x[:, :own_tokens], deep[layer - 1][None]], dim=1)
        x = run_block(block, x)
    return visual.ln_post(x[0, 0]) @ visual.proj


def naive_logits(
    clip: nn.Module,
    state: dict[str, Tensor],
    images: Tensor,
    domain_features: Tensor,
    token_ids: Tensor,
    *,
    n_ctx: int,
    depth: int,
    fusion: str = "sum",
    residual: bool = False,
    noise: Tensor | None = None,
    towers: Any = None,
) -> Tensor:
    """Return the logits of every image for every class (docs/method.md, "Forward pass").

    Args:
        clip: an open_clip CLIP whose towers are transformers.
        state: the learnable tensors, named as in this module's docstring.
        images: (B, 3, H, W), CLIP-normalised.
        domain_features: (B, d_f), pooled.
        token_ids: (K, 77), the tokenised full prompts ("a photo of a NAME.").
        n_ctx: context length n.
        depth: prompt depth J.
        fusion: "sum" or "axes" (docs/method.md, "Variants").
        residual: add un-conditioned prompts to the quaternion output ("Variants").
        noise: e_b, already scaled, (B, d_t); None for no noise.
        towers: a module with other `text_features` and `image_feature`, for another kind of CLIP.

    Returns:
        (B, K).
    """
    context = state["ctx"]
    deep_text = [state[f"deep_text.{layer}"] for layer in range(depth - 1)]
    assert context.shape[0] == n_ctx, "state was made for another context length"
    if towers is None:
        assert depth <= len(clip.transformer.resblocks), "more prompted layers than layers"
        assert token_ids.shape[1] == clip.positional_embedding.shape[0], "full-length prompts only"
    prompted_image = image_feature if towers is None else towers.image_feature
    prompted_text = text_features if towers is None else towers.text_features

    rows = []
    for b, image in enumerate(images):
        hidden = state["meta_net.0.weight"] @ domain_features[b] + state["meta_net.0.bias"]
        domain = state["meta_net.2.weight"] @ hidden.relu() + state["meta_net.2.bias"]
        noisy_domain = domain if noise is None else domain + noise[b]

        language = fuse(state, "language", context, noisy_domain, fusion)
        if residual:
            language = context + state["language.gain"] * language

        shallow = context @ state["vision_proj.weight"].T + state["vision_proj.bias"]
        deep_vision = []
        for layer, prompt in enumerate(deep_text):
            vision = fuse(state, f"vision.{layer}", prompt, domain, fusion)
            if residual:
                gain = state[f"vision.{layer}.gain"]
                vision = state[f"deep_vision.{layer}"] + gain * vision
            deep_vision.append(vision)

        seen = prompted_image(clip, image, shallow, deep_vision)
        read = prompted_text(clip, token_ids, language, deep_text)
        seen = seen / seen.norm()
        read = read / read.norm(dim=-1, keepdim=True)
        rows.append(clip.logit_scale.exp() * (read @ seen))
    return torch.stack(rows)


def random_state(
    clip: nn.Module,
    *,
    n_ctx: int,
    depth: int,
    domain_dim: int,
    fusion: str = "sum",
    residual: bool = False,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return random learnable tensors without zeros, so that every term contributes.

    Args:
        clip: source of the widths d_t and d_v.
        n_ctx: context length n.
        depth: prompt depth J; may exceed the model's layers (the dict is then only counted).
        domain_dim: d_f.
        fusion: "sum" or "axes": decides the quaternion layers' input widths.
        residual: also make gains and `deep_vision`.
        generator: source of all randomness (CPU).

    Returns:
        Leaf tensors with requires_grad, named as in this module's docstring.
    """
    text_width = clip.positional_embedding.shape[1]
    vision_width = clip.visual.class_embedding.shape[0]
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, std: float, mean: float = 0.0) -> None:
        state[name] = (mean + std * torch.randn(shape, generator=generator)).requires_grad_()

    def add_linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs, std=inputs**-0.5)
        add(f"{name}.bias", outputs, std=0.1)

    def add_quaternion(name: str, outputs: int) -> None:
        inputs = {"sum": 2, "axes": 4}[fusion] * text_width
        for axis in "rijk":
            add(f"{name}.{axis}", inputs // 4, outputs // 4, std=inputs**-0.5)
        add(f"{name}.bias", outputs, std=0.05)
        if residual:
            add(f"{name}.gain", std=0.1, mean=0.5)

    add("ctx", n_ctx, text_width, std=0.1)
    add_linear("meta_net.0", domain_dim, META_NET_HIDDEN)
    add_linear("meta_net.2", META_NET_HIDDEN, text_width)
    add_linear("vision_proj", text_width, vision_width)
    add_quaternion("language", text_width)
    for layer in range(depth - 1):
        add(f"deep_text.{layer}", n_ctx, text_width, std=0.1)
        add_quaternion(f"vision.{layer}", vision_width)
        if residual:
            add(f"deep_vision.{layer}", n_ctx, vision_width, std=0.1)
    return state


def count_numbers(state: dict[str, Tensor]) -> int:
    """Return the number of learnable numbers in `state`."""
    return sum(tensor.numel() for tensor in state.values())
