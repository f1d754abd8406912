"""Utilities, under Dassl's names."""

from .checkpoint import (
    load_checkpoint,
    load_pretrained_weights,
    model_file,
    resume_from_checkpoint,
    save_checkpoint,
)
from .errors import ChoiceError, InputError, MissingFileError, check_availability
from .files import (
    atomic_write,
    check_isfile,
    download_url,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    tolist_if_not,
    write_json,
)
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .model import (
    count_num_param,
    init_network_weights,
    open_all_layers,
    open_specified_layers,
    set_bn_to_eval,
)
from .registry import Registry
from .system import collect_env_info, set_random_seed

__all__ = [
    "AverageMeter",
    "ChoiceError",
    "InputError",
    "Logger",
    "MetricMeter",
    "MissingFileError",
    "Registry",
    "atomic_write",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "download_url",
    "init_network_weights",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "model_file",
    "open_all_layers",
    "open_specified_layers",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_bn_to_eval",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
