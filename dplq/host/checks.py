"""Validation of a config, whole, before anything is done with it.

`CHECKS` is the one table of the keys that our trainers and datasets read; the keys of a trainer's
own node have their checks in its method's settings class, and every other key of `train.py` must be
of the kind of its default. `contradictions` compares keys with each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dplq.clip.activation import ACTS
from dplq.domain.arguments import parse_arguments, several
from dplq.domain.pooling import POOLS
from dplq.errors import UserError, shown
from dplq.images.cache import CHECK as CACHE_CHECK
from dplq.images.settings import CHECKS as READ_CHECKS
from dplq.io.nodes import flatten
from dplq.io.runs.results import SUBSETS
from dplq.io.validation.values import (
    Check,
    converted,
    each,
    expected,
    flag,
    like,
    number,
    one_of,
    optional,
    require,
    text,
    whole,
)
from dplq.methods.settings import check_of
from dplq.training import PRECISIONS
from dplq.training.schedule import SCHEDULERS, WARMUPS, learning_rate
from dplq.training.tracking.trackers import check_services

from .dassl import find_trainer, registered_trainers

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")  # torch.compile's
SAMPLERS = (
    *("RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler"),
    "RandomClassSampler",
)
LARGEST = 1 << 13  # pixels of a side, of what a model takes
MOST_EPOCHS = 10**6
HIGHEST = 1e30  # of a rate: an optimiser's steps multiply it, and end in float32
RATE, SHARE, DECAY = number(0, HIGHEST), number(0, 1), number(0, 0.999999)
SEED = whole(-1, 2**32 - 1)


def _names_of(module: str, attribute: str, otherwise: tuple[str, ...]) -> Check:
    """Return a check for the names that the Dassl in use knows.

    Args:
        module: of Dassl.
        attribute: the module's list of names.
        otherwise: the names, where this Dassl has no such list.
    """

    def check(value: Any) -> str:
        from importlib import import_module

        names = getattr(import_module(module), attribute, otherwise)
        return one_of(tuple(names))(value)

    return check


def _evaluator(value: Any) -> str:
    from dassl.evaluation import EVALUATOR_REGISTRY

    return one_of(EVALUATOR_REGISTRY.registered_names())(value)


def _transforms(value: Any) -> str:
    problem = each(text, "a list of names of transforms")(value)
    if problem:
        return problem
    known = _names_of("dassl.data.transforms", "AVAI_CHOICES", tuple(value))
    return next((wrong for name in value if (wrong := known(name))), "")


def _pair(check: Check, words: str) -> Check:
    """Return a check for two values of which the first is not the larger one."""
    both = each(check, words, count=2)
    return lambda value: both(value) or ("" if value[0] <= value[1] else expected(value, words))


def _odd(value: Any) -> str:
    problem = whole(1, LARGEST)(value)
    return problem or ("" if value % 2 else expected(value, "odd"))


def _pattern(value: Any) -> str:
    problem = text(value)
    if problem:
        return problem
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        return (
            f" {shown(value)} is not a regular expression: {error}. Example: "
            r"'(patient\d+)_' makes one group of all images of a patient."
        )
    return ""


def _name(value: Any) -> str:
    return text(value) or ("" if value else expected(value, "a name"))


def _names(check: Check, words: str) -> Check:
    """Return a check for one text or a list of texts."""
    several = each(check, words)

    def check_all(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return several(value) if value else expected(value, words)
        return check(value)

    return check_all


def _timm_arguments(value: Any) -> str:
    problem = text(value)
    if problem:
        return problem
    try:
        parse_arguments(value, "")
    except UserError as error:
        return f"{error}."
    return ""


def _stepsize(value: Any) -> str:
    words = "a list of whole numbers of epochs"
    return each(whole(-1, MOST_EPOCHS), words)(value) or ("" if value else expected(value, words))


def _loader(part: str) -> dict[str, Check]:
    return {
        f"DATALOADER.{part}.SAMPLER": one_of(SAMPLERS),
        f"DATALOADER.{part}.BATCH_SIZE": whole(1, 1 << 20),
        f"DATALOADER.{part}.N_DOMAIN": whole(-1),
        f"DATALOADER.{part}.N_INS": whole(1, 1 << 20),
    }


CHECKS: dict[str, Check] = {
    "OUTPUT_DIR": text,
    "RESUME": text,
    "SEED": SEED,
    "USE_CUDA": flag,
    "VERBOSE": flag,
    "INPUT.SIZE": each(whole(1, LARGEST), f"two whole numbers from 1 to {LARGEST}", count=2),
    "INPUT.INTERPOLATION": one_of(("bilinear", "bicubic", "nearest")),
    "INPUT.TRANSFORMS": _transforms,
    "INPUT.NO_TRANSFORM": flag,
    "INPUT.PIXEL_MEAN": each(number(-1000, 1000), "three numbers from -1000 to 1000", count=3),
    "INPUT.PIXEL_STD": each(number(1e-6, 1000), "three numbers from 1e-6 to 1000", count=3),
    "INPUT.CROP_PADDING": whole(0, LARGEST),
    "INPUT.RRCROP_SCALE": _pair(
        number(above=0, high=1), "two numbers, 0 < low <= high <= 1, such as (0.08, 1.0)"
    ),
    "INPUT.CUTOUT_N": whole(0, 1000),
    "INPUT.CUTOUT_LEN": whole(0, LARGEST),
    "INPUT.GN_MEAN": number(-1000, 1000),
    "INPUT.GN_STD": number(0, 1000),
    "INPUT.RANDAUGMENT_N": whole(0, 100),
    "INPUT.RANDAUGMENT_M": whole(0, 30),
    "INPUT.COLORJITTER_B": number(0, 1000),
    "INPUT.COLORJITTER_C": number(0, 1000),
    "INPUT.COLORJITTER_S": number(0, 1000),
    "INPUT.COLORJITTER_H": number(0, 0.5),
    "INPUT.RGS_P": SHARE,
    "INPUT.GB_P": SHARE,
    "INPUT.GB_K": _odd,
    **{f"INPUT.{name.upper()}": converted(*check) for name, check in READ_CHECKS.items()},
    "DATASET.ROOT": text,
    "DATASET.NAME": text,
    "DATASET.SOURCE_DOMAINS": each(_name, "a list of names"),
    "DATASET.TARGET_DOMAINS": each(_name, "a list of names"),
    "DATASET.VAL_PERCENT": SHARE,
    "DATASET.NUM_SHOTS": whole(-1),
    "DATASET.SUBSAMPLE_CLASSES": one_of(SUBSETS),
    "DATASET.SPLIT_FILE": text,
    **{f"DATASET.COLUMNS.{name}": text for name in ("PATH", "LABEL", "SPLIT", "GROUP", "PROMPT")},
    "DATASET.GROUP": _pattern,
    "DATASET.SKIP_EMPTY_CLASSES": flag,
    "DATASET.ALL_TEST": flag,
    "DATASET.PROTOCOL": one_of(("ours", "reference")),
    "DATASET.CHECK_IMAGES": flag,
    "DATASET.SKIP_BROKEN": flag,
    "DATALOADER.NUM_WORKERS": whole(0, 1024),
    "DATALOADER.K_TRANSFORMS": whole(1, 1024),
    "DATALOADER.RETURN_IMG0": flag,
    "DATALOADER.IMAGE_CACHE": CACHE_CHECK,
    **_loader("TRAIN_X"),
    **_loader("TRAIN_U"),
    "DATALOADER.TRAIN_U.SAME_AS_X": flag,
    "DATALOADER.TEST.SAMPLER": one_of(SAMPLERS),
    "DATALOADER.TEST.BATCH_SIZE": whole(1, 1 << 20),
    "MODEL.INIT_WEIGHTS": text,
    "MODEL.BACKBONE.NAME": text,
    "MODEL.BACKBONE.PRETRAINED": flag,
    "MODEL.BACKBONE.ACT": one_of(ACTS),
    "MODEL.HEAD.DROPOUT": SHARE,
    "MODEL.TEXT_CHUNK": whole(0),
    "MODEL.GRAD_CHECKPOINTING": flag,
    "MODEL.COMPILE": one_of(("", *COMPILE_MODES), f"empty or one of {', '.join(COMPILE_MODES)}"),
    "OPTIM.NAME": _names_of(
        "dassl.optim.optimizer",
        "AVAI_OPTIMS",
        ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"),
    ),
    "OPTIM.LR": number(above=0, high=HIGHEST),
    "OPTIM.WEIGHT_DECAY": RATE,
    "OPTIM.MOMENTUM": DECAY,
    "OPTIM.SGD_DAMPNING": SHARE,
    "OPTIM.SGD_NESTEROV": flag,
    "OPTIM.RMSPROP_ALPHA": DECAY,
    "OPTIM.ADAM_BETA1": DECAY,
    "OPTIM.ADAM_BETA2": DECAY,
    "OPTIM.STAGED_LR": flag,
    "OPTIM.NEW_LAYERS": lambda value: (
        text(value) if isinstance(value, str) else each(text, "a list of names")(value)
    ),
    "OPTIM.BASE_LR_MULT": number(0, 100),
    "OPTIM.LR_SCHEDULER": one_of(SCHEDULERS),
    "OPTIM.STEPSIZE": _stepsize,
    "OPTIM.GAMMA": number(above=0, high=1),
    "OPTIM.MAX_EPOCH": whole(1, MOST_EPOCHS),
    "OPTIM.WARMUP_EPOCH": whole(-1, MOST_EPOCHS),
    "OPTIM.WARMUP_TYPE": one_of(WARMUPS),
    "OPTIM.WARMUP_CONS_LR": RATE,
    "OPTIM.WARMUP_MIN_LR": RATE,
    "OPTIM.WARMUP_RECOUNT": flag,
    "TRAIN.CHECKPOINT_FREQ": whole(-1),
    "TRAIN.PRINT_FREQ": whole(1),
    "TRAIN.COUNT_ITER": one_of(("train_x", "train_u", "smaller_one")),
    "TRAIN.CLASS_WEIGHTS": one_of(("", "balanced"), "empty or balanced"),
    "TRAIN.FEATURE_CACHE": number(0, 1e6),
    "TRAIN.CUDA_GRAPH": flag,
    "TRAIN.TRACK": check_services,
    "TRAIN.TRACK_PROJECT": text,
    "TEST.EVALUATOR": _evaluator,
    "TEST.PER_CLASS_RESULT": flag,
    "TEST.COMPUTE_CMAT": flag,
    "TEST.NO_TEST": flag,
    "TEST.SPLIT": one_of(("test", "val"), "test or val"),
    "TEST.FINAL_MODEL": one_of(("last_step", "best_val"), "last_step or best_val"),
    "TEST.ALLOW_TRAIN_IMAGES": flag,
    "TEST.PREDICTIONS": flag,
    "TEST.TEMPERATURE": one_of(("none", "val"), "none or val"),
    "DOMAIN.ENCODER": _names(_name, "a name or a list of names"),
    "DOMAIN.WEIGHTS": _names(text, "a path or a list of paths"),
    "DOMAIN.MEAN": each(number(-1e6, 1e6), "a list of numbers, one per channel"),
    "DOMAIN.STD": each(number(above=0, high=1e6), "a list of numbers above 0, one per channel"),
    "DOMAIN.IMAGE_SIZE": whole(0, LARGEST),
    "DOMAIN.POOL": one_of(("", *POOLS), f"empty or one of {', '.join(POOLS)}"),
    "DOMAIN.ARGS": _timm_arguments,
    "DOMAIN.FEATURE": one_of(("encoder", "decoder_embed")),
    "DOMAIN.NORMALIZE": optional(one_of(("native", "clip"))),
    "DOMAIN.CACHE": flag,
    "DOMAIN.PRETRAINED": flag,
}
# what holds beyond `CHECKS` for our trainers, which take one view of an image, as a tensor
OF_OUR_TRAINERS: dict[str, Check] = {
    "INPUT.NO_TRANSFORM": lambda value: "" if value is False else expected(value, "False"),
    "DATALOADER.K_TRANSFORMS": lambda value: "" if value == 1 else expected(value, "1"),
    "DATALOADER.TEST.SAMPLER": one_of(("SequentialSampler", "RandomSampler")),
}


def checks_of(trainer: Any) -> dict[str, Check]:
    """Return the checks of a trainer's own keys, by dotted name."""
    fields = trainer.model_class.settings_class.config_fields()
    own = {field.name.upper(): check_of(field) for field in fields} | {"PREC": one_of(PRECISIONS)}
    return {f"TRAINER.{trainer.node}.{name}": check for name, check in own.items()}


def reads_domain(trainer: Any, given: Mapping[str, Any]) -> bool:
    """Return whether one of our trainers uses a domain encoder with these keys.

    Args:
        trainer: its class.
        given: the config by dotted names; keys that are absent have their defaults.
    """
    model, node = trainer.model_class, f"TRAINER.{trainer.node}."
    own = {field.name: field.default for field in model.settings_class.config_fields()}
    settings = {name: given.get(node + name.upper(), default) for name, default in own.items()}
    return bool(model.reads_domain(settings))


def known_checks() -> dict[str, Check]:
    """Return the checks of all keys of this project: the table, and every trainer's own keys."""
    own = (checks_of(trainer) for trainer in registered_trainers())
    return {key: check for checks in (CHECKS, *own) for key, check in checks.items()}


def check_config(cfg: Any) -> None:
    """Check the config of `train.py`: every key, and contradictions.

    Args:
        cfg: complete.

    Raises:
        UserError: naming the first key that is wrong, its value, and what is expected.
    """
    from dassl.config import get_cfg_default

    checks = {key: like(default) for key, default in flatten(get_cfg_default())} | known_checks()
    _check_keys(cfg, checks)
    trainer = find_trainer(cfg.TRAINER.NAME)
    if hasattr(trainer, "model_class"):
        _check_rules(cfg, trainer)


def check_for_trainer(cfg: Any, trainer: Any) -> None:
    """Check the keys that one of our trainers reads; a host's config may lack some.

    Args:
        cfg: of `train.py`, or of a host tree.
        trainer: its class.

    Raises:
        UserError: as `check_config`.
    """
    _check_keys(cfg, CHECKS | checks_of(trainer))
    _check_rules(cfg, trainer)


def _check_rules(cfg: Any, trainer: Any) -> None:
    """Check what holds for our trainers beyond the keys, each of which is valid by itself."""
    _check_keys(cfg, OF_OUR_TRAINERS)
    given = dict(flatten(cfg))
    problem = _weights(given, reads_domain(trainer, given))
    if not problem:
        by_steps = bool(given.get(f"TRAINER.{trainer.node}.ITERATIONS"))
        problem = next(contradictions(cfg, trainer.optimizes, by_steps), "")
    if problem:
        raise UserError(problem)


def check_section(cfg: Any, section: str) -> None:
    """Check the keys below one section, such as ``DATASET``; a host's config may lack some.

    Raises:
        UserError: as `check_config`.
    """
    _check_keys(cfg, {key: check for key, check in CHECKS.items() if key.startswith(f"{section}.")})


def _check_keys(cfg: Any, checks: dict[str, Check]) -> None:
    for key, check in checks.items():
        node, *rest = _nodes(cfg, key)
        leaf = key.rpartition(".")[2]
        if not rest and leaf in node:
            require(key, node[leaf], check)


def _nodes(cfg: Any, key: str) -> list[Any]:
    """Return the node that holds a key; two nodes where the config lacks one on the way there."""
    node, way = cfg, key.split(".")[:-1]
    for depth, part in enumerate(way, start=1):
        if part not in node:
            return [node, None]
        node = node[part]
        if not isinstance(node, dict):
            name = ".".join(way[:depth])
            raise UserError(f"{name} is {shown(node)}; it must be a section of keys.")
    return [node]


def _weights(given: dict[str, Any], uses_domain: bool) -> str:
    """Return what is wrong with files of weights that other keys rule out; "" for nothing."""
    names = several(given.get("DOMAIN.ENCODER") or "")
    if uses_domain and len(names) > 1 and (problem := _several_encoders(names, given)):
        return problem
    encoder = names[0] if len(names) == 1 else None
    if uses_domain and encoder == "clip" and given.get("DOMAIN.WEIGHTS"):
        return (
            f"DOMAIN.WEIGHTS is {shown(given['DOMAIN.WEIGHTS'])}, but DOMAIN.ENCODER clip is the "
            "CLIP itself, whose weights MODEL.INIT_WEIGHTS names: leave DOMAIN.WEIGHTS empty."
        )
    pairs = [("MODEL.INIT_WEIGHTS", "MODEL.BACKBONE.PRETRAINED")]
    if uses_domain and encoder != "none":
        pairs.append(("DOMAIN.WEIGHTS", "DOMAIN.PRETRAINED"))
    for key, pretrained in pairs:
        if given.get(key) and not given.get(pretrained, True):
            return (
                f"{key} is {shown(given[key])}, but {pretrained} False asks for random weights: "
                "change one of the two."
            )
    return ""


def _several_encoders(names: list[str], given: Mapping[str, Any]) -> str:
    """Return what is wrong with keys beside several encoders; "" for nothing."""
    if "none" in names:
        return f"DOMAIN.ENCODER is {shown(names)}: none stands alone, for no domain feature."
    files = several(given.get("DOMAIN.WEIGHTS") or [])
    if files and len(files) != len(names):
        return (
            f"DOMAIN.WEIGHTS names {len(files)} files for {len(names)} encoders: give one for "
            'each, in their order, "" for an encoder without a file.'
        )
    for key in ("MEAN", "STD", "IMAGE_SIZE", "ARGS"):
        if value := given.get(f"DOMAIN.{key}"):
            return (
                f"DOMAIN.{key} is {shown(value)}, but DOMAIN.ENCODER names {len(names)} encoders, "
                "which differ in it: it is for one encoder only."
            )
    return ""


def contradictions(cfg: Any, by_gradients: bool = True, by_steps: bool = False) -> Iterator[str]:
    """Yield a sentence for every pair of keys that cannot both hold, each key by itself valid.

    Args:
        cfg: complete.
        by_gradients: whether the trainer has an optimiser; all trainers have loaders.
        by_steps: whether the length of the run is a number of steps: how many epochs they are is
            known only with the images.
    """
    optim = (_nesterov, _steps, _schedule) if by_gradients else ()
    length = (_warm_up,) if by_gradients and not by_steps else ()
    for compare in (*optim, *length, _class_sampler, _domain_sampler, _blur):
        problem = compare(cfg)
        if problem:
            yield problem


def _nesterov(cfg: Any) -> str:
    optim = cfg.OPTIM
    if optim.NAME != "sgd" or not optim.SGD_NESTEROV:
        return ""
    for key, holds, words in (
        ("MOMENTUM", optim.MOMENTUM > 0, "above 0"),
        ("SGD_DAMPNING", optim.SGD_DAMPNING == 0, "0"),
    ):
        if not holds:
            value = optim[key]
            return f"OPTIM.{key} is {value}, but with OPTIM.SGD_NESTEROV True it must be {words}."
    return ""


def _steps(cfg: Any) -> str:
    optim, steps = cfg.OPTIM, list(cfg.OPTIM.STEPSIZE)
    rising = all(a < b for a, b in zip([0, *steps], steps, strict=False))
    if optim.LR_SCHEDULER == "multi_step" and not rising:
        words = "epochs from 1 on, each larger than the one before"
    elif optim.LR_SCHEDULER == "single_step" and len(steps) > 1:
        words = "one number of epochs, [-1] for the whole run"
    else:
        return ""
    return (
        f"OPTIM.STEPSIZE is {shown(steps)}, but OPTIM.LR_SCHEDULER {optim.LR_SCHEDULER} takes "
        f"{words}: change one of the two."
    )


def _warm_up(cfg: Any) -> str:
    warm, length = cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.MAX_EPOCH
    return warm_up_problem(warm, length, f"OPTIM.MAX_EPOCH {length}")


def warm_up_problem(warm: int, length: int, what: str) -> str:
    """Return what is wrong with a warm-up of so many epochs; "" for nothing.

    Args:
        warm: OPTIM.WARMUP_EPOCH.
        length: epochs that it begins.
        what: says how many they are.
    """
    if warm <= length:
        return ""
    return (
        f"OPTIM.WARMUP_EPOCH is {warm}, but {what}: the warm-up cannot be longer; set "
        f"OPTIM.WARMUP_EPOCH to at most {length}, -1 for none."
    )


def _schedule(cfg: Any) -> str:
    optim = cfg.OPTIM
    warm = max(optim.WARMUP_EPOCH, 0)
    if warm >= optim.MAX_EPOCH:
        return ""
    try:
        learning_rate(
            warm,
            base_lr=optim.LR,
            max_epoch=optim.MAX_EPOCH,
            scheduler=optim.LR_SCHEDULER,
            stepsize=optim.STEPSIZE,
            gamma=optim.GAMMA,
            warmup_epoch=warm,
            warmup_recount=optim.WARMUP_RECOUNT,
        )
    except ZeroDivisionError:
        return (
            f"OPTIM.GAMMA is {optim.GAMMA}, so small that nothing of the learning rate is left "
            f"after OPTIM.WARMUP_EPOCH {warm}: choose a larger GAMMA, or WARMUP_RECOUNT True."
        )
    return ""


def _blur(cfg: Any) -> str:
    given = cfg.INPUT
    if "gaussian_blur" not in given.TRANSFORMS or min(given.SIZE) > given.GB_K // 2:
        return ""
    return (
        f"INPUT.GB_K is {given.GB_K}, but INPUT.SIZE {tuple(given.SIZE)}: half of the kernel must "
        "fit the image; choose a smaller one."
    )


def _class_sampler(cfg: Any) -> str:
    given = cfg.DATALOADER.TRAIN_X
    if given.SAMPLER != "RandomClassSampler" or given.BATCH_SIZE >= given.N_INS:
        return ""
    return (
        f"DATALOADER.TRAIN_X.N_INS is {given.N_INS}, but BATCH_SIZE {given.BATCH_SIZE}: with "
        "RandomClassSampler a batch must hold the N_INS images of a class; change one of the two."
    )


def _domain_sampler(cfg: Any) -> str:
    given = cfg.DATALOADER.TRAIN_X
    domains = given.N_DOMAIN if given.SAMPLER == "RandomDomainSampler" else 0
    if domains <= 0 or given.BATCH_SIZE % domains == 0:
        return ""
    return (
        f"DATALOADER.TRAIN_X.BATCH_SIZE is {given.BATCH_SIZE}, no multiple of N_DOMAIN {domains}, "
        "which RandomDomainSampler needs: change one of the two."
    )
