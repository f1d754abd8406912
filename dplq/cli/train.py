r"""Train or test a model, with the flags and config handling of CoOp's train.py.

dplq train --trainer QuaternionPrompt --dataset-config-file rsscn7 --root DATA \
    --config-file vit_b16_c2_ep15_batch4_2ctx --output-dir OUT --seed 1 [KEY VALUE ...]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dplq.cli.config_files import dataset_config, default_config, trainer_config
from dplq.cli.summary import places_text, settings_text
from dplq.errors import UserError, printable, suggest
from dplq.io.exit_code import closed_pipe, is_disk_full
from dplq.io.imports import add_import, import_modules
from dplq.io.log import CurrentStdout
from dplq.io.validation.paths import refused_paths, user_folder

OVERRIDES = {  # flag -> config key it sets
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "head": "MODEL.HEAD.NAME",
}

EPILOG = r"""examples:
    dplq train --trainer QuaternionPrompt --dataset-config-file demo_aerial \
        --output-dir output/demo_run --seed 1 DATASET.NUM_SHOTS 16
    dplq train --trainer CoOp --dataset-config-file own_images --root my_images \
        --config-file vit_b16 --output-dir output/mine --seed 1
    dplq train --trainer CoOp --dataset-config-file own_images --root new_site \
        --config-file vit_b16 --output-dir output/new_site \
        --eval-only --model-dir output/mine DATASET.ALL_TEST True
    dplq train --trainer QuaternionPrompt --help

--trainer NAME --help lists the config keys of a trainer as well. A mistake is one line and exit
code 2; DPLQ_TRACEBACK=1 shows its traceback. docs/protocol.md lists the files of a run."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: CoOp's flags."""
    parser = argparse.ArgumentParser(
        prog="dplq train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        add_help=False,
    )
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="show this help and exit")
    add("--root", help="folder that holds the datasets")
    add("--output-dir", help="where logs, checkpoints and results.json go")
    add("--resume", help="folder of an interrupted run to continue (default: --output-dir)")
    add("--seed", type=int, help="0 or more: fixed seed; default: a new one each run")
    add("--source-domains", nargs="+", help="source domains for DA/DG")
    add("--target-domains", nargs="+", help="target domains for DA/DG")
    add("--transforms", nargs="+", help="data augmentation methods")
    add(
        "--config-file",
        help="config file of the trainer: a path, or a name in configs/trainers/TRAINER (default: "
        "the protocol's of configs/protocols.yaml; demo for the built-in datasets)",
    )
    add(
        "--dataset-config-file",
        help="config file of the dataset: a path, or a name in configs/datasets",
    )
    add("--trainer", help="name of the trainer")
    add(
        "--backbone",
        help="CLIP: ViT-B/16, NAME:TAG, hf-hub:ORG/NAME, local-dir:PATH, or of `dplq models list`",
    )
    add("--head", help="name of the head (unused by prompt learners)")
    add("--eval-only", action="store_true", help="test only")
    add("--model-dir", default="", help="with --eval-only: folder of the training run to test")
    add("--load-epoch", type=int, help="with --eval-only: epoch to test (default: best, else last)")
    add("--no-train", action="store_true", help="build everything, but do not train")
    add("--overwrite", action="store_true", help="replace the run in --output-dir by a new one")
    add("--verbose", action="store_true", help="print in a terminal what else is in log.txt only")
    add_import(parser)
    add("opts", nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    return parser


def setup_cfg(args: argparse.Namespace) -> Any:
    """Return the config: defaults, dataset file, trainer file, flags, KEY VALUE pairs.

    Raises:
        UserError: unknown file, key, dataset or trainer, or a value that a key cannot have.
    """
    from dplq.host.checks import check_config
    from dplq.host.run_config import check_name, check_names

    if args.trainer:
        check_name("trainer", args.trainer)
    cfg = merged(args, args.config_file)
    check_names(cfg)
    if not args.config_file and not cfg.MODEL.BACKBONE.NAME:  # nothing could run
        data = cfg.DATASET
        default = default_config(
            cfg.TRAINER.NAME, data.NAME, data.SUBSAMPLE_CLASSES, data.NUM_SHOTS
        )
        logging.info("No --config-file is given: %s is used.", default)
        args.config_file = default  # for the log file, which is not open yet
        cfg = merged(args, default)
    check_config(cfg)
    if not cfg.OUTPUT_DIR:
        raise UserError("OUTPUT_DIR is empty: give --output-dir, the folder of the run.")
    cfg.OUTPUT_DIR = usable_folder(cfg.OUTPUT_DIR, "--output-dir")
    cfg.RESUME = usable_folder(cfg.RESUME, "--resume")
    check_resume(cfg)
    return cfg


def merged(args: argparse.Namespace, config_file: str | None) -> Any:
    """Return the config of a command line with this file of the trainer, not yet checked.

    Raises:
        UserError: unknown file or key, or a value that a key cannot have.
    """
    from dplq.host.run_config import run_config

    files = [dataset_config(args.dataset_config_file)] if args.dataset_config_file else []
    if config_file:
        trainer = args.trainer or run_config(files, {}, ()).TRAINER.NAME
        files.append(trainer_config(config_file, trainer))
    flags = {key: getattr(args, flag) for flag, key in OVERRIDES.items()}
    given = {key: value for key, value in flags.items() if value not in (None, "")}
    return run_config(files, given, args.opts)


def usable_folder(text: str, flag: str) -> str:
    """Return a folder's path as it was given, but with its ``~`` expanded.

    Raises:
        UserError: it cannot be a folder.
    """
    path = user_folder(text, flag) if text else Path()
    return str(path) if text.startswith("~") else text


def check_resume(cfg: Any) -> None:
    """Refuse a folder to resume from that holds nothing to resume; nothing is made yet.

    Raises:
        UserError: there is no such folder, or no resume file of ours in it.
    """
    from dplq.host.dassl import find_trainer
    from dplq.host.run_identity import has_resume_file
    from dplq.io.runs.files import MODEL_FOLDER

    if not cfg.RESUME:
        return
    ours = hasattr(find_trainer(cfg.TRAINER.NAME), "model_class")
    if not Path(cfg.RESUME).is_dir():
        raise UserError(f"RESUME is {cfg.RESUME}, but there is no such folder.")
    if ours and not has_resume_file(cfg.RESUME):
        file = Path(cfg.RESUME) / MODEL_FOLDER / "resume.safetensors"
        raise UserError(f"RESUME is {cfg.RESUME}, but there is no {file}.")


def recorded_seed(resume: str, output_dir: str) -> int:
    """Return the seed of the run that goes on where no --seed was given, else a new one."""
    from dplq.io.runs.files import SEED_FILE
    from dplq.io.runs.folder import is_to_be_cleared, recorded_identity
    from dplq.io.validation.paths import is_file

    for folder in filter(None, (resume, output_dir)):
        if is_to_be_cleared(folder):
            continue
        recorded = recorded_identity(Path(folder))
        if recorded and recorded.seed >= 0:  # -1 in host trees: none
            return recorded.seed
        path = Path(folder) / SEED_FILE
        if is_file(path):
            return _read_seed(path)
    return random.SystemRandom().randrange(2**31)


def _read_seed(path: Path) -> int:
    from dplq.io.runs.results import Seed
    from dplq.io.validation.schema import InvalidContent, parse_json, read_text

    text = read_text(path, remedy="Delete it.", max_bytes=1000)
    try:
        return parse_json(text, Seed, where=str(path))
    except InvalidContent as error:
        raise UserError(
            f"{path} should hold one whole number, not '{printable(text.strip()):.40}' (0 to "
            "2**32 - 1): delete it."
        ) from error


def claim_output(args: argparse.Namespace, cfg: Any) -> None:
    """Make the output folder this run's, before anything is written there; freeze the config.

    Raises:
        UserError: it is in use, or another run's.
    """
    from dplq.io.runs.folder import hold
    from dplq.training.distributed import by_main

    def seed_in_held_folder() -> int:
        folder = hold(cfg.OUTPUT_DIR)
        if args.overwrite:
            refuse_to_delete_what_is_used(args, cfg)
            folder.to_be_cleared = True
        seed: int = cfg.SEED
        return recorded_seed(cfg.RESUME, cfg.OUTPUT_DIR) if seed < 0 else seed

    cfg.SEED = by_main(seed_in_held_folder)
    cfg.freeze()
    if not args.overwrite:  # else `run` does it, once nothing can refuse the new run any more
        by_main(lambda: claim(args, cfg))


def claim(args: argparse.Namespace, cfg: Any) -> None:
    """Record in the output folder whose it is.

    Raises:
        UserError: it is another run's.
    """
    from dplq.host.run_identity import claim_run, claim_test
    from dplq.io.atomic import write_bytes_atomically
    from dplq.io.runs.files import SEED_FILE
    from dplq.io.runs.folder import TRAIN

    if args.eval_only and needs_model(cfg.TRAINER.NAME):
        claim_test(cfg, args.model_dir, args.load_epoch)
        return
    folder = claim_run(cfg, TRAIN)
    if args.seed is None and not folder.work():
        write_bytes_atomically(folder.path / SEED_FILE, str(cfg.SEED).encode())


def refuse_to_delete_what_is_used(args: argparse.Namespace, cfg: Any) -> None:
    """Refuse --overwrite of the run that is to be tested or continued.

    Raises:
        UserError: it would be deleted.
    """
    from dplq.io.validation.paths import is_same_folder

    for flag, used in (("--model-dir", args.model_dir), ("--resume", cfg.RESUME)):
        above = [used, *Path(os.path.abspath(used)).parents] if used else []
        if any(is_same_folder(folder, cfg.OUTPUT_DIR) for folder in above):
            raise UserError(
                f"--overwrite would delete the run in {cfg.OUTPUT_DIR}, which {flag} names. Leave "
                "it out, or give another --output-dir."
            )


def needs_model(trainer: str) -> bool:
    """Return whether a trainer needs a model to test; zero-shot ones do not."""
    from dplq.host.dassl import find_trainer

    return getattr(find_trainer(trainer), "fixed_epochs", None) != 0


def print_args(args: argparse.Namespace, cfg: Any) -> None:
    """Print Dassl's log header: arguments, then config."""
    stars = "*" * 12
    print(f"{stars}\n** Arguments **\n{stars}")
    ours = [flag for flag in ("imports", "verbose") if not getattr(args, flag)]
    for key, value in sorted(vars(args).items()):
        if key in ("help", *ours):  # CoOp's flags alone, where no other is used
            continue
        print(f"{key}: {value}")
    print(f"{stars}\n** Config **\n{stars}\n{cfg}")


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection during start-up, which makes hardly any garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(args: argparse.Namespace) -> None:
    """Run a parsed command line.

    Raises:
        UserError: any mistake of the user's.
    """
    from dplq.io.runs.folder import hold, release_all
    from dplq.training.distributed import by_main, is_main

    def replace_run(cfg: Any) -> None:
        hold(cfg.OUTPUT_DIR).clear()
        claim(args, cfg)

    try:
        with without_garbage_collection():
            trainer = build(args)
        if args.eval_only:
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
        if args.overwrite and (args.eval_only or not args.no_train):
            by_main(lambda: replace_run(trainer.cfg))
        if args.eval_only:
            trainer.test()
        elif not args.no_train:
            trainer.train()
        if hasattr(trainer, "model_class") and not args.no_train and is_main():
            print(places_text(trainer, args.model_dir, args.imports))
    finally:
        release_all()


def run_as_one_of_several(args: argparse.Namespace) -> None:
    """Run as `run` does; of several processes that torchrun has started only the first prints.

    Raises:
        UserError: any mistake of the user's.
        ProcessLost: another of the processes has ended.
    """
    from dplq.training import distributed

    message = ""
    try:
        with distributed.quiet_but_main():
            run(args)
    except Exception as error:
        message = str(error) if is_mistake(error) else ""
        raise
    finally:
        if distributed.world_size() > 1:  # torchrun ends all where one has ended
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        distributed.leave(message)


def print_help(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Print the flags, and the config keys of the trainer that is named."""
    parser.print_help()
    known = argparse.ArgumentParser(add_help=False)
    known.add_argument("--trainer")
    add_import(known)
    named = known.parse_known_args(arguments)[0]
    if not named.trainer:
        return
    import dplq.plugin  # noqa: F401  (registers trainers)
    from dplq.host.config import GENERAL_KEYS, key_table, trainer_keys
    from dplq.host.dassl import find_trainer, registered_trainers

    import_modules(named.imports)
    own = {trainer.__name__: trainer for trainer in registered_trainers()}
    if find_trainer(named.trainer) and named.trainer not in own:
        print(f"\n{named.trainer} has no config keys of this project.")
        return
    if named.trainer not in own:
        raise UserError(f"The trainer '{named.trainer}' is unknown.{suggest(named.trainer, own)}")
    print(f"\nconfig keys of {named.trainer} (KEY VALUE, or a YAML file):")
    print(key_table(trainer_keys(own[named.trainer])))
    print("\nconfig keys of all trainers, beside Dassl's:")
    print(key_table(GENERAL_KEYS))


def build(args: argparse.Namespace) -> Any:
    """Return the trainer of a command line, ready to run; its log has begun.

    Raises:
        UserError: any mistake of the user's.
    """
    import dplq.plugin  # noqa: F401  (registers trainers and datasets)
    from dplq.host.dassl import find_trainer
    from dplq.host.foreign_keys import warn_of_foreign_keys
    from dplq.host.terminal import log_only, print_in_terminal, set_quiet
    from dplq.host.weights import check_weights
    from dplq.io.runs.folder import NO_MODEL
    from dplq.training import distributed

    distributed.join()
    import_modules(args.imports)
    args.model_dir = usable_folder(args.model_dir, "--model-dir")
    cfg = setup_cfg(args)
    if args.eval_only and not args.model_dir and needs_model(cfg.TRAINER.NAME):
        raise UserError(NO_MODEL)
    if hasattr(trainer := find_trainer(cfg.TRAINER.NAME), "model_class"):
        check_weights(cfg, trainer)  # before anything is written
    else:
        distributed.refuse_distributed(f"{cfg.TRAINER.NAME}, no trainer of dplq, is one process.")

    import torch

    distributed.connect(torch.cuda.is_available() and cfg.USE_CUDA)
    claim_output(args, cfg)

    from dassl.engine import build_trainer
    from dassl.utils import collect_env_info, set_random_seed, setup_logger

    set_random_seed(cfg.SEED)
    if distributed.is_main():
        setup_logger(cfg.OUTPUT_DIR)
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    set_quiet(not args.verbose)
    with log_only():
        print_args(args, cfg)
        print(f"Collecting env info ...\n** System info **\n{collect_env_info()}\n")
    print_in_terminal(settings_text(cfg))
    if not hasattr(trainer, "model_class"):  # ours say so themselves, in a host tree too
        warn_of_foreign_keys(cfg, trainer)
    return build_trainer(cfg)


class Terminated(KeyboardInterrupt):
    """A signal that ends a run as Ctrl-C does; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # a cluster may send it twice
    raise Terminated(number)


def end_on_signals() -> None:
    """Have SIGTERM and SIGHUP end a run as Ctrl-C does, but for SIGHUP under nohup."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _terminate)


def reports_error() -> bool:
    """Return whether this process says why the run ends: of several only one does."""
    distributed = sys.modules.get("dplq.training.distributed")
    return distributed is None or bool(distributed.reports_error())


def lost_process(error: Exception, where: str) -> str:
    """Return what to say where another process has ended; "" for any other error."""
    distributed = sys.modules.get("dplq.training.distributed")
    if distributed is None or not isinstance(error, distributed.ProcessLost):
        return ""
    return distributed.message_of_others() or (
        "another process of this run has ended: was it killed, or its memory full? Every finished "
        f"epoch is saved in {where}; run the same command again to go on from there."
    )


def is_mistake(error: Exception) -> bool:
    """Return whether a user can do something about an error."""
    from dplq.host.dassl import user_error_types

    return is_disk_full(error) or isinstance(error, user_error_types())


def printed(error: Exception) -> bool:
    """Print what a user can do about an error; return whether it is such a one."""
    from dplq.host.dassl import user_error_types
    from dplq.host.reporting import print_error, wants_traceback

    if isinstance(error, user_error_types()) and not wants_traceback():
        print_error(error)
    elif is_disk_full(error):
        print(f"error: the disk is full ({error}). What was saved is kept.", file=sys.stderr)
    else:
        return False
    return True


def explained(error: Exception, where: str) -> bool:
    """Return whether the user is told in a line why the run ends, by this process or another."""
    if text := lost_process(error, where):
        if reports_error():
            print(f"error: {text}", file=sys.stderr)
        return True
    return (is_mistake(error) and not reports_error()) or printed(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and turn user mistakes into one line and exit code 2.

    Args:
        argv: the arguments; None: those of the process.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[CurrentStdout()])
    parser, arguments = build_parser(), list(sys.argv[1:] if argv is None else argv)
    asks_help = not {"-h", "--help"}.isdisjoint(arguments)  # whatever else may be wrong there
    args = argparse.Namespace(output_dir="") if asks_help else parser.parse_args(arguments)
    where = args.output_dir or "the output folder"
    end_on_signals()
    try:
        if asks_help:
            print_help(parser, arguments)
        else:
            with refused_paths():
                run_as_one_of_several(args)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        anew = ", without --overwrite," if getattr(args, "overwrite", False) else ""
        if reports_error():
            print(
                f"\nInterrupted. Every finished epoch is saved in {where}; "
                f"run the same command again{anew} to go on from there.",
                file=sys.stderr,
            )
        return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        closed_pipe()
        if asks_help:
            return 0
        print(
            "error: nothing takes the output any more (| head?), so the run ends. Run the same "
            "command again to go on from there.",
            file=sys.stderr,
        )
        return 128 + signal.SIGPIPE
    except Exception as error:
        if not explained(error, where):
            raise
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
