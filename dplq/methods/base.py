"""Models of all methods: a frozen CLIP, something learned on it, class names, checkpoints.

`CLIPModel` is what every method shares; `PromptedCLIP` adds prompts for the two towers, and is the
one model on which every prompt method of this project is a learner that makes `Prompts`.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import Compose

from dplq.clip.backbone import Backbone
from dplq.clip.hub_tokenizer import HubTokenizer
from dplq.clip.packed_text import PackedTexts
from dplq.clip.templates import prompt_name
from dplq.errors import UserError, few, shown
from dplq.images.model_input import ModelInput, recorded_input
from dplq.io import checkpoint
from dplq.io.finite import non_finite
from dplq.io.header import check_model_header
from dplq.io.spec import PARTS, Spec
from dplq.io.validation.paths import name_problem, user_path
from dplq.methods.prediction import Images, Prediction, predict
from dplq.methods.public_checkpoints import PublicFormat
from dplq.methods.registry import METHODS, check_registered
from dplq.methods.settings import MethodSettings
from dplq.training.frozen.batch import CLIP, DOMAIN, FrozenBatch

if TYPE_CHECKING:
    from typing_extensions import Self

    from dplq.domain.encoder import DomainEncoder

logger = logging.getLogger(__name__)
# Files in a CLIP's folder whose digests are in a header.
OWN_FILES = {"backbone_config": "config", "tokenizer": "tokenizer"}
Loss = Callable[[Tensor, Tensor], Tensor]  # of logits (B, K) and labels (B,)


class CLIPModel(nn.Module):
    """A frozen CLIP and something learned on it; only `prompt_learner` is trainable.

    Subclasses implement `forward` and, where classes are more than names, `set_classnames`.

    Args:
        clip: the CLIP backbone.
        learner: what is learned.
        classnames: K class names.
        settings: what a checkpoint must share with the model it is loaded into, and more
            (JSON-able).
        domain: the domain encoder, for methods that use one.

    Raises:
        UserError: the backbone is another model's, which changes its weights.

    Attributes:
        method: name of the method, in the registry and in checkpoint headers.
        settings_class: the dataclass of its settings.
        needs: what it needs of the backbone, keys of `dplq.clip.backbone.NEEDS`.
        structure: keys of `settings` that must agree for a checkpoint to fit; None: all of them.
        may_differ: keys of `settings`, none of `structure`, whose difference is logged.
        public: the original's checkpoints, which can be loaded too.
        uses_domain: the constructor takes a domain encoder after the backbone.
        any_classes: False for methods that can only tell the classes apart they were trained on.
        needs_images: False for methods that get nothing from images but un-prompted features of
            frozen encoders, and draw from no global generator; these features can then be kept.
        frozen_batch: features that are known of a batch of images.
        noise_generator: source of random numbers in training, or None for torch's global one.
        text_chunk: classes that the text tower runs at once, in whole blocks, or "auto".
        input: how its images are preprocessed: as in its training, else as the backbone's were.
            Setting it has the domain encoder undo that normalisation.
    """

    method: ClassVar[str] = ""
    settings_class: ClassVar[type[MethodSettings]] = MethodSettings
    structure: ClassVar[Sequence[str] | None] = None
    may_differ: ClassVar[Sequence[str]] = ()
    needs: ClassVar[Sequence[str]] = ()
    public: ClassVar[PublicFormat | None] = None
    uses_domain: ClassVar[bool] = False
    any_classes: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    frozen_batch: FrozenBatch | None = None

    clip: Backbone
    prompt_learner: nn.Module
    domain: DomainEncoder | None
    folded_text: Tensor | None  # of a `folded` model

    def __init__(
        self,
        clip: Backbone,
        learner: nn.Module,
        classnames: Sequence[str],
        *,
        settings: dict[str, Any],
        domain: DomainEncoder | None = None,
    ) -> None:
        super().__init__()
        self.check_support(clip, settings)
        if clip.is_adapted:
            raise UserError(
                "This backbone's weights are changed by another model: use the backbone which that "
                "model was made of (its `frozen_clip`), or load the file that its `merge` writes."
            )
        self.clip, self.prompt_learner, self.domain = clip, learner, domain
        self.settings = settings
        self.classnames = validate_classnames(classnames)
        self.noise_generator: torch.Generator | None = None
        self.text_chunk: int | str = "auto"
        self.input = self._own_input()
        self.register_buffer("folded_text", None, persistent=False)

    def _own_input(self) -> ModelInput:
        """Return the backbone's preprocessing."""
        clip = self.clip
        return ModelInput(
            *(clip.image_size, clip.interpolation, clip.image_mean, clip.image_std),
            resize_mode=clip.resize_mode,
        )

    @property
    def input(self) -> ModelInput:
        """How images become what the model takes; the domain encoder undoes its normalisation."""
        return self._input

    @input.setter
    def input(self, given: ModelInput) -> None:
        self._input = given
        if self.domain is not None and hasattr(self.domain, "for_images"):  # else a user's own
            self.domain = self.domain.for_images(given.mean, given.std)

    @property
    def preprocess(self) -> Compose:
        """Return the transform of a PIL image to what the model takes, (3, H, W) float32.

        It is that of a run's tests, `input`: the same bits for the same file.
        """
        return self.input.transform()

    @classmethod
    def reads_domain(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether a model with these settings needs a domain encoder."""
        return cls.uses_domain

    @classmethod
    def needs_of(cls, settings: Mapping[str, Any]) -> Sequence[str]:
        """Return what a model with these settings needs of the backbone."""
        return cls.needs

    @classmethod
    def check_support(cls, clip: Backbone, settings: Mapping[str, Any]) -> None:
        """Refuse a backbone that does not support what the method needs.

        A constructor calls it before it makes a learner of the backbone's widths.

        Raises:
            UserError: naming what is missing, and the methods that can use the backbone.
        """
        missing = {need: clip.lacks(need) for need in cls.needs_of(settings)}
        missing = {need: reason for need, reason in missing.items() if reason}
        if missing:
            others = [name for name, method in METHODS.items() if method.supports(clip)]
            raise UserError(
                f"{cls.method} needs {' and '.join(missing)}, which {clip.spec.name} does not "
                f"support: {'; '.join(dict.fromkeys(missing.values()))}. Methods that can use it, "
                f"at their default settings: {', '.join(others)}."
            )

    @classmethod
    def supports(cls, clip: Backbone) -> bool:
        """Return whether the backbone supports the method at its default settings."""
        needs = cls.needs_of(asdict(cls.settings_class()))
        return not any(clip.lacks(need) for need in needs)

    @property
    def learner_dtype(self) -> torch.dtype:
        """Dtype of the learnable state and of the logits."""
        for parameter in self.prompt_learner.parameters():  # next() cannot be traced by torch 2.4
            return parameter.dtype
        return torch.float32

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes from now on; nothing learned is lost.

        Raises:
            UserError: no class, a prompt longer than CLIP's context (named), other classes where
                `any_classes` is False, or the model is `folded`.
        """
        names = validate_classnames(classnames)
        if self.folded_text is not None:
            raise UserError(
                "This model is folded for its classes: call set_classnames of the model that it "
                "was made of, and folded() again."
            )
        if not self.any_classes and names != self.classnames:
            raise UserError(self._cannot_name("This model", self.classnames, names))
        self._embed_classes(names)
        self.classnames = names

    def _embed_classes(self, classnames: list[str]) -> None:
        """Prepare what depends on the class names; called again for other ones."""

    @property
    def draws_in_tests(self) -> bool:
        """Return whether random numbers are drawn in tests, one batch after the other."""
        return bool(self.settings.get("noise") and self.settings.get("noise_at_test"))

    def prompt_texts(self) -> list[list[str]]:
        """Return the texts of every class as the text tower gets them; empty: it gets none.

        A learned token is shown as the word it started from, or as "X".
        """
        return []

    def prompt_kind(self) -> str:
        """Return what is fixed and what is learned of `prompt_texts`, in a few words."""
        return ""

    @contextmanager
    def gradient_part(self) -> Iterator[None]:
        """Leave out, in this context, what is no part of the training loss."""
        yield

    @property
    def left_out(self) -> str:
        """Name what `gradient_part` leaves out; "" for nothing."""
        return ""

    @property
    def unchanged_clip(self) -> Backbone:
        """The backbone as it was loaded."""
        return self.clip

    @property
    def frozen_inputs(self) -> tuple[str, ...]:
        """Return the frozen encoders whose features training uses: `CLIP`, `DOMAIN`."""
        clip = () if self.needs_images else (CLIP,)
        return clip if self.domain is None else (*clip, DOMAIN)

    def encode_frozen(self, images: Tensor, encoder: str = CLIP) -> Tensor:
        """Return what a frozen encoder makes of images (B, 3, H, W), un-prompted: (B, d or d_f)."""
        compute = self.unchanged_clip.encode_image if encoder == CLIP else self.domain
        assert compute is not None  # a method asks for the encoders that it has
        if self.frozen_batch is None:
            return compute(images)
        return self.frozen_batch.feature(encoder, images, lambda: compute(images))

    def image_features(self, images: Tensor, *, adapted: bool = True) -> Tensor:
        """Return L2-normalised image features (B, d).

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            adapted: those that the model compares with its classes, with all that was learned;
                False: those of CLIP without it.
        """
        return self._plain_features(images, self.clip if adapted else self.unchanged_clip)

    def _plain_features(self, images: Tensor, clip: Backbone) -> Tensor:
        """Return a backbone's L2-normalised features (B, d) of images, without prompts."""
        is_frozen = clip is self.unchanged_clip
        features = self.encode_frozen(images) if is_frozen else clip.encode_image(images)
        return F.normalize(features.to(self.learner_dtype), dim=-1)

    def predict(
        self,
        images: Images,
        *,
        topk: int | None = None,
        batch_size: int = 64,
        workers: int = 0,
    ) -> list[Prediction]:
        """Classify images of any kind, in eval mode and without gradients.

        Args:
            images: one or several: paths of image files, which are read as in training; PIL images;
                preprocessed tensors, (3, H, W) or (B, 3, H, W).
            topk: classes to return with their probabilities; None: all.
            batch_size: images in a forward pass.
            workers: processes that read images; 0: this one.

        Returns:
            A prediction for each image, in order; a list for a single one, too.

        Raises:
            UserError: an image cannot be read, or is none.
        """
        return predict(self, images, topk=topk, batch_size=batch_size, workers=workers)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return the scaled cosines (B, K) of features (B, d) and (B or 1, K, d)."""
        # A product and a sum, not a matmul: autocast would round the logits to half precision.
        cosine = (image_features.unsqueeze(1) * text_features).sum(dim=-1)
        return self.clip.logit_scale.to(cosine.dtype) * cosine

    def losses(
        self, images: Tensor, labels: Tensor, cross_entropy: Loss = F.cross_entropy
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms of the training loss, weighted, and the logits (B, K).

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            labels: (B,).
            cross_entropy: of logits and labels, the term "ce"; a weighted one may take its place.
        """
        logits = self(images)
        return {"ce": cross_entropy(logits, labels)}, logits

    def constant_text(self) -> Tensor | None:
        """Return the text features (1, K, d) that `forward` makes for every batch alike.

        None where there are none, or where the images decide them.
        """
        return None

    @torch.no_grad()
    def folded(self) -> Self:
        """Return a copy, which shares tensors, in which what no image changes is computed.

        It is for inference on these classes only; `export` traces it.
        """
        new = copy.copy(self)
        for group in ("_modules", "_parameters", "_buffers"):  # a copied module shares them
            new.__dict__[group] = dict(self.__dict__[group])
        new.folded_text = self.constant_text()
        new.text_chunk = len(self.classnames)
        return new

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int | None = None,
        information: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the classifier of these classes as a program that needs no dplq.

        Its input is a preprocessed batch (B, 3, H, W), its output the logits (B, K). Text features
        that no image changes are stored in place of the text tower.

        Args:
            path: ``.pt2`` (`torch.export`) or ``.onnx``; `~` is the home folder.
            batch_size: B; None: any.
            information: JSON-able entries to store beside class names and preprocessing.

        Raises:
            UserError: another suffix, a package is missing, or the model cannot be traced.
        """
        from dplq.export.write import write  # imports torch.export, which takes a second

        write(self, user_path(path, "path"), batch_size, information or {})

    def header(self) -> dict[str, Any]:
        """Return the model's checkpoint header (JSON-able)."""
        return {
            "method": self.method,
            "backbone": self.clip.spec.header(),
            "domain": self.domain.spec.header() if self.domain is not None else None,
            "settings": self.settings,
            "classnames": self.learned_classes,
        }

    @property
    def learned_classes(self) -> list[str]:
        """Return the classes that what was learned belongs to."""
        return self.classnames

    def save(self, path: str | os.PathLike[str], **extra: Any) -> None:
        """Write the learnable state and a header to a .safetensors file (see `checkpoint.save`).

        Args:
            path: the file; `~` is the home folder.
            **extra: JSON-able entries to add to the header; `trainer`, `epoch` and others of a run.

        Raises:
            UserError: the file cannot be written, a weight is nan or infinite, or an entry would
                replace one of the model's own.
        """
        if own := sorted((self.header().keys() | {"format"}) & extra.keys()):
            raise UserError(f"The header has {few(own)} of its own: name the entry otherwise.")
        check_registered(type(self))
        path, state = user_path(path, "path"), self.prompt_learner.state_dict()
        if found := non_finite(state):
            raise UserError(
                f"{path} is not written: the model's weights are nan or infinite "
                f"({few(found, 4, '; ')}). Train it again with a lower learning rate, or in fp32."
            )
        recorded = {**self._clip_entries(), **self.input.header_entries()}
        content = {**self.header(), **recorded, **extra}
        if extra:
            _check_extra(content, path)
        checkpoint.save(path, state, content)

    def _clip_entries(self) -> dict[str, str]:
        """Return what decides features of the backbone and its record alone does not tell.

        A digest of the weights covers neither the activation nor the config of a folder.
        """
        spec, tokenizer = self.clip.spec, self.clip.text.tokenizer
        said = spec.sha256 or "act" in spec.options
        entries = {
            "activation": self.clip.activation if said else "",
            "backbone_config": self.clip.config_sha256,
            "tokenizer": tokenizer.digest if isinstance(tokenizer, HubTokenizer) else "",
        }
        return {key: value for key, value in entries.items() if value}

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Read a file that `save` wrote into this model; return its header.

        Raises:
            UserError: it is damaged, or was made for another backbone, domain encoder, depth, ...
                (both named).
        """
        path = user_path(path, "path")
        tensors, header = checkpoint.read(path)
        check_model_header(header, path)
        own = self._comparable(header, path)
        cure = _cure(header["domain"], own["domain"])
        if said := header.get("activation"):
            own["activation"] = self.clip.activation
            if said != own["activation"]:
                cure += (
                    " act= of load_backbone (MODEL.BACKBONE.ACT) sets the activation, auto being "
                    "that of the model's own config."
                )
        checkpoint.check_header(self._identity(header), self._identity(own), path, cure)
        self.load_tensors(tensors, path, header["classnames"])
        for key in self.may_differ:
            then, now = (given.get(key) for given in (header["settings"], self.settings))
            if then != now:
                given = (key.upper(), shown(now), path, shown(then))
                logger.warning("%s is %s, but %s was trained with %s.", *given)
        self.input = recorded_input(header, self._own_input())
        self._warn_of_own_files(header, path)
        return header

    def _warn_of_own_files(self, header: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
        """Warn of other files in the CLIP's folder than at the training.

        They may say the same in other words, so that is no reason to refuse the checkpoint.
        """
        own = self._clip_entries()
        for key, what in OWN_FILES.items():
            then, now = header.get(key), own.get(key)
            if then and now and then != now:
                logger.warning(
                    "The %s of %s has changed since %s was trained: predictions may differ.",
                    *(what, self.clip.spec.name, path),
                )

    def _comparable(
        self, header: Mapping[str, Any], path: str | os.PathLike[str]
    ) -> dict[str, Any]:
        """Return the model's own header, without digests that a file's version did not record."""
        own = self.header()
        for part in ("backbone", "domain"):
            if own[part] is None or header[part] is None:
                continue
            now, then = Spec.from_header(own[part]), Spec.from_header(header[part])
            known = now.without_unrecorded(then)
            if known != now:
                logger.warning(
                    "%s does not record the content of its %s %s: whether the %s the same is not "
                    "checked.",
                    *(path, "CLIP" if part == "backbone" else "domain encoder", then.name),
                    "config is" if then.sha256 else "weights are",
                )
            own[part] = known.header()
        return own

    def load_tensors(
        self,
        tensors: dict[str, Tensor],
        path: str | os.PathLike[str],
        classnames: Sequence[str] | None = None,
    ) -> None:
        """Load learnable tensors, read from `path`, that were learned for `classnames`.

        Raises:
            UserError: names or shapes are not this model's, or its classes are others.
        """
        self.check_classes(tensors, classnames, path)
        self.match_sizes(tensors, classnames)
        checkpoint.load_strictly(self.prompt_learner, tensors, path)

    def check_classes(
        self,
        tensors: dict[str, Tensor],
        learned: Sequence[str] | None,
        path: str | os.PathLike[str],
    ) -> None:
        """Refuse (UserError) what was learned for other classes, where that matters.

        Args:
            tensors: the learnable state.
            learned: the classes it was learned for; None if they are not known.
            path: where it is from, for the message.
        """
        if not self.any_classes and learned is not None and list(learned) != self.classnames:
            raise UserError(self._cannot_name(path, learned, self.classnames))

    def match_sizes(self, tensors: dict[str, Tensor], learned: Sequence[str] | None) -> None:
        """Adopt the sizes of what is loaded, where training decides them.

        Args:
            tensors: the learnable state.
            learned: the classes it was learned for; None if they are not known.
        """

    def _cannot_name(
        self, what: str | os.PathLike[str], learned: Sequence[str], now: Sequence[str]
    ) -> str:
        model = f"{what} is a {self.method} model for the classes {few(learned, 4)}."
        if set(now) <= set(learned):
            return (
                f"{model} It needs exactly these, in this order (now: {few(now, 4)}). To test it "
                "on images of some of them, use `dplq predict` with a table."
            )
        return (
            f"{model} It cannot tell others apart (now: {few(now, 4)}): test it on its own "
            "classes, or use a method that uses class names, such as ZeroshotCLIP."
        )

    def _identity(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return what of a header must agree for a checkpoint to fit."""
        keys = self.settings if self.structure is None else self.structure
        parts = {part: _identity_of(header.get(part)) for part in ("backbone", "domain")}
        said = {"activation": header["activation"]} if header.get("activation") else {}
        if said and parts["backbone"]:
            parts["backbone"].pop("act", None)  # which activation runs counts, not how it was set
        return {
            "method": header.get("method"),
            **parts,
            **said,
            "settings": {key: header.get("settings", {}).get(key) for key in keys},
        }


def _cure(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """Return what to do about a checkpoint that does not fit a domain encoder."""
    pairs = [(then or {}, now or {})]
    if then and now:
        pairs += zip(then.get(PARTS, ()), now.get(PARTS, ()), strict=False)
    keys = ("mean", "std", "pool")
    unrecorded = [key for key in keys if any(key in ours and key not in old for old, ours in pairs)]
    if not (then and now and unrecorded):
        return checkpoint.CURE
    return (
        f"It does not record {few(unrecorded)} of its domain encoder, which earlier versions took "
        f"otherwise: dplq.load opens it as it was trained. {checkpoint.CURE}"
    )


def _identity_of(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if entry is None else Spec.from_header(entry).identity()


def _check_extra(content: Mapping[str, Any], path: Path) -> None:
    """Refuse (UserError) a header with entries that `check_model_header` would refuse."""
    try:
        check_model_header(content, path)
    except checkpoint.DamagedFile as error:
        why = error.problem.partition(": ")[2]
        raise UserError(f"{path} is not written, as nothing could open it: {why}") from error


def validate_classnames(classnames: Sequence[str]) -> list[str]:
    """Return class names as a list.

    Raises:
        UserError: there is none, one is no text, or it is one text instead of a list.
    """
    if isinstance(classnames, str) or not isinstance(classnames, Iterable):
        raise UserError(f"classnames is {shown(classnames)}; give a list of names.")
    names = list(classnames)  # of an array, too, which has no truth value
    if not names:
        raise UserError("At least one class name is needed.")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise UserError(f"classnames[{index}] is {shown(name)}; it must be a text.")
        if problem := name_problem(name):
            raise UserError(f"classnames[{index}] {problem}: {shown(name)}; give another name.")
    return list(map(str, names))  # numpy's texts are not JSON's


@dataclass(frozen=True)
class Prompts:
    """Prompts of the two towers for a batch of B images and K classes.

    Attributes:
        language: the context, (B or 1, K or 1, n, d_t); 1 where all images or classes share it;
            None: the text is fixed.
        deep_text: J - 1 tensors, for the layers 1..J-1 of the text tower: (n, d_t), or (K, n, d_t)
            with prompts of each class's own; no rows leave a layer unchanged.
        vision: (n_v, d_v) or (B, n_v, d_v), appended in layer 0 of the image tower; None: nothing.
        deep_vision: J_v - 1 tensors of the same shapes, for its layers 1..J_v-1.
    """

    language: Tensor | None
    deep_text: Sequence[Tensor] = ()
    vision: Tensor | None = None
    deep_vision: Sequence[Tensor] = field(default=())

    @property
    def are_shared(self) -> bool:
        """Return whether all classes have the same prompts in the text tower."""
        shared = self.language is None or self.language.shape[1] == 1
        return shared and all(deep.dim() == 2 for deep in self.deep_text)

    def with_text(self, language: Tensor, deep_text: Sequence[Tensor]) -> Prompts:
        """Return the same vision prompts with these of the text tower."""
        # Not dataclasses.replace, which torch 2.4 cannot trace.
        return Prompts(language, deep_text, self.vision, self.deep_vision)


class PromptedCLIP(CLIPModel):
    """A frozen CLIP with prompts in both towers.

    Subclasses whose learner depends on the images override `prompts`.

    Args:
        clip: the CLIP backbone.
        learner: a module that makes `Prompts`.
        classnames: K class names; underscores become spaces.
        settings: as for `CLIPModel`.
        prefix: the words before the class name; the context replaces its first `n_ctx` tokens.
        n_ctx: number of context tokens; 0 for a fixed text, encoded once per set of classes.
        class_position: "end", "middle" or "front": where the class name stands in the context.
        domain: as for `CLIPModel`.
    """

    texts: PackedTexts | None
    sos: Tensor
    rest: Tensor
    eot: Tensor
    fixed_text: Tensor | None
    order: Tensor | None

    def __init__(
        self,
        clip: Backbone,
        learner: nn.Module,
        classnames: Sequence[str],
        *,
        settings: dict[str, Any],
        prefix: str,
        n_ctx: int,
        class_position: str = "end",
        domain: DomainEncoder | None = None,
    ) -> None:
        super().__init__(clip, learner, classnames, settings=settings, domain=domain)
        self.prefix, self.n_ctx, self.class_position = prefix, n_ctx, class_position
        PromptedCLIP._embed_classes(self, self.classnames)

    def _embed_classes(self, classnames: list[str]) -> None:
        """Embed the fixed tokens of every class's text, which surround the context."""
        names = list(map(prompt_name, classnames))
        tokens = self.clip.tokenize([f"{self.prefix} {name}." for name in names])
        fixed = None if self.n_ctx else self._fixed_text(tokens, self.clip)
        self.register_buffer("fixed_text", fixed, persistent=False)
        self.texts = None
        if fixed is not None and self.clip.lacks("text prompts"):
            return  # nothing to embed with, and nothing to embed for
        eot, start = self.clip.text_end(tokens), self.clip.prompt_start
        tokens = self.clip.trim(tokens)
        device = self.clip.logit_scale.device
        with torch.no_grad():
            embedded = self.clip.embed_tokens(tokens.to(device)).to(self.learner_dtype)
        self.register_buffer("sos", embedded[:, :start], persistent=False)
        self.register_buffer("rest", embedded[:, start + self.n_ctx :], persistent=False)
        self.register_buffer("eot", eot.to(device), persistent=False)
        if self.n_ctx and self.clip.supports_packing:
            with torch.no_grad():
                self.texts = self.clip.pack_texts(tokens, self.n_ctx)
        self.register_buffer("order", self._order(names, tokens.shape[1], device), persistent=False)

    @torch.no_grad()
    def _fixed_text(self, tokens: Tensor, clip: Backbone) -> Tensor:
        """Return L2-normalised features (1, K, d) of texts without a context."""
        features = clip.encode_text(tokens.to(clip.logit_scale.device))
        return F.normalize(features.to(self.learner_dtype), dim=-1).unsqueeze(0)

    def prompt_texts(self) -> list[list[str]]:
        """Return the one text of every class, with its name at the place it has."""
        return [[self.text_of(name)] for name in self.classnames]

    def text_of(self, classname: str) -> str:
        """Return the text of a class, as `prompt_texts` has it."""
        words, before = self.prefix.split(), self._words_before_name()
        rest = words[len(before) :]
        return " ".join([*before, prompt_name(classname), *rest]) + "."

    def _words_before_name(self) -> list[str]:
        """Return the words that stand before the class name."""
        words = self.prefix.split()
        counts = {"end": len(words), "middle": self.n_ctx // 2, "front": 0}
        return words[: counts[self.class_position]]

    def prompt_kind(self) -> str:
        """Return how many tokens of the text are learned."""
        if not self.n_ctx:
            return "fixed text"
        start = "random, shown as X" if set(self.prefix.split()) == {"X"} else "as written"
        return f"the first {self.n_ctx} tokens of the context are learned and start {start}"

    def _order(self, names: list[str], length: int, device: torch.device) -> Tensor | None:
        """Return each position's source position, (K, L); None for the plain order.

        Where a word has several tokens, the prefix has more than `n_ctx`. CoOp's release takes the
        name to stand behind `n_ctx` tokens all the same, and moves tokens of the words instead.
        """
        if self.class_position == "end":
            return None
        start = self.clip.prompt_start
        before = start + self._count_tokens(self._words_before_name())
        end = start + self._count_tokens(self.prefix.split())
        rows = []
        for count in self.clip.count_tokens(self.clip.tokenize(names)).tolist():
            positions = list(range(length))
            name, after = positions[end : end + count], positions[before:end]
            rows.append(positions[:before] + name + after + positions[end + count :])
        return torch.tensor(rows, device=device)

    def _count_tokens(self, words: list[str]) -> int:
        """Return how many tokens words have, without those that mark start and end."""
        return int(self.clip.count_tokens(self.clip.tokenize([" ".join(words)]))) if words else 0

    def prompts(self, images: Tensor) -> Prompts:
        """Return the prompts for a batch of CLIP-normalised images (B, 3, H, W)."""
        return self.prompt_learner()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (B, 3, H, W), CLIP-normalised.

        Returns:
            Logits (B, K) in the dtype of the learnable state, float32.
        """
        prompts = self.prompts(images)
        return self.logits(self.image_features(images, prompts), self.text_features(prompts))

    def image_features(
        self, images: Tensor, prompts: Prompts | None = None, *, adapted: bool = True
    ) -> Tensor:
        """Return L2-normalised image features (B, d).

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            prompts: for the image tower; None: the model's own for these images.
            adapted: False: those of CLIP without all that was learned; prompts have no effect.
        """
        if not adapted:
            return super().image_features(images, adapted=False)
        prompts = self.prompts(images) if prompts is None else prompts
        if prompts.vision is None:
            return super().image_features(images)
        features = self.clip.encode_prompted_image(images, prompts.vision, prompts.deep_vision)
        return F.normalize(features.to(self.learner_dtype), dim=-1)

    def constant_text(self) -> Tensor | None:
        """Return the text features (1, K, d), where the prompts in the texts are shared."""
        parameter = self.clip.logit_scale
        shape = (2, 3, self.clip.image_size, self.clip.image_size)
        prompts = self.prompts(torch.zeros(shape, device=parameter.device))  # of two images
        shared = prompts.language is None or prompts.language.shape[0] == 1
        return self.text_features(prompts) if shared else None

    def text_features(self, prompts: Prompts) -> Tensor:
        """Return L2-normalised features (B or 1, K, d) of all (image, class) pairs."""
        if self.folded_text is not None:
            return self.folded_text
        if prompts.language is None:
            assert self.fixed_text is not None  # made where there is no context
            return self.fixed_text
        if self.texts is not None and self.order is None and prompts.are_shared:
            features = self.clip.encode_packed_text(
                self.sos[0], prompts.language[:, 0], self.texts, prompts.deep_text, self.text_chunk
            )
            return F.normalize(features.to(self.learner_dtype), dim=-1)
        return self._plain_text_features(prompts)

    def _plain_text_features(self, prompts: Prompts) -> Tensor:
        """Run every text as a whole: for towers and contexts that cannot be packed."""
        language, classes = prompts.language, len(self.classnames)
        assert language is not None  # a fixed text is encoded once
        batch, _, _n_ctx, width = language.shape
        sequences = torch.cat(
            [
                self.sos.expand(batch, -1, -1, -1),
                language.expand(-1, classes, -1, -1),
                self.rest.expand(batch, -1, -1, -1),
            ],
            dim=2,
        )
        if self.order is not None:
            order = self.order[None, :, :, None].expand(batch, -1, -1, width)
            sequences = sequences.gather(2, order)
        # one set per text where the classes differ in them
        deep = [own.repeat(batch, 1, 1) if own.dim() == 3 else own for own in prompts.deep_text]
        features = self.clip.encode_prompted_text(
            sequences.flatten(0, 1),
            self.eot.repeat(batch),
            deep,
            self.text_chunk if isinstance(self.text_chunk, str) else self.text_chunk * batch,
        )
        return F.normalize(features.unflatten(0, (batch, classes)).to(self.learner_dtype), dim=-1)
