"""The bash scripts: their arguments and environment variables are a request.

scripts/common.sh calls `main` in the root of the checkout with PROTOCOL [DATASET [SEED ...]]
[-- KEY VALUE ...].
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dplq.errors import UserError
from dplq.experiments.protocols import trainers as all_trainers
from dplq.experiments.requests import flags
from dplq.experiments.requests.help_texts import help_text
from dplq.experiments.requests.names import find_dataset, find_trainers
from dplq.experiments.requests.request import DATASET, PROTOCOLS, SEEDS, Request, make_plan
from dplq.experiments.requests.values import pairs
from dplq.experiments.signals import run_until_stopped
from dplq.io.exit_code import DONE, exit_code

CALLER_VARIABLE = "DPLQ_CALLER"  # the folder that the script was called in
OWN_CONFIG = "CFG_"  # and a trainer: the variable of its config


def request_of(
    protocol: str, arguments: Sequence[str], environment: Mapping[str, str], caller: Path
) -> Request:
    """Return the request of a script.

    Args:
        protocol: a key of `PROTOCOLS`.
        arguments: of the script, from the dataset on.
        environment: its variables.
        caller: folder that relative paths begin in.

    Raises:
        UserError: an argument or a variable is wrong.
    """
    default = PROTOCOLS[protocol]
    first = "SOURCE" if default.targets else "DATASET"
    if arguments[0] == "--":
        raise UserError(f"give a {first} before --")
    dataset, *rest = arguments
    cut = rest.index("--") if "--" in rest else len(rest)
    reserved = "this script: use the arguments and SHOTS, OUT, DATA, TRAINERS"
    options = pairs(rest[cut + 1 :], caller, reserved)
    seeds = flags.seeds(rest[:cut]) or SEEDS
    shots = _shots(protocol, environment.get("SHOTS", ""))
    data = flags.data_folder(environment.get("DATA") or "data", "DATA", caller)
    out = flags.folder(environment.get("OUT") or "output", "OUT", caller)
    generalised = environment.get("GENERALISED") or "no"
    if default.configs == "base2new" and generalised not in ("yes", "no"):
        raise UserError(f"GENERALISED is '{generalised}': give yes or no")
    return Request(
        protocol=protocol,
        datasets=(find_dataset(dataset),),
        trainers=_trainers(default.trainers, environment),
        out=out,
        data=data,
        shots=shots,
        seeds=seeds,
        configs=_configs(environment),
        options=options,
        targets=_targets(environment.get("TARGETS", "")) if default.targets else (),
        generalised=generalised == "yes",
    )


def _shots(protocol: str, given: str) -> tuple[int, ...]:
    words = flags.split(given, "SHOTS") if given else []
    shots = flags.shots(words, "SHOTS") or PROTOCOLS[protocol].shots
    if len(shots) > 1 and protocol != "few-shot":
        raise UserError(f"SHOTS is '{' '.join(map(str, shots))}': one number is wanted here")
    return shots


def _trainers(default: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    for name in ("TRAINERS", "TRAINER"):
        if given := environment.get(name):
            return find_trainers(flags.split(given, name), "TRAINER")
    return find_trainers(default, "TRAINER")


def _targets(given: str) -> tuple[str, ...]:
    words = flags.split(given, "TARGETS") if given else []
    return tuple(dict.fromkeys(map(find_dataset, words)))


def _configs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the configs by trainer, that of CFG for ""."""
    names = [name for name in all_trainers() if re.fullmatch(r"\w+", name, re.ASCII)]
    own = {name: environment.get(f"{OWN_CONFIG}{name}", "") for name in names}
    return {name: config for name, config in own.items() if config} | {
        "": environment.get("CFG", "")
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run a script; return its exit code."""
    protocol, *arguments = sys.argv[1:] if argv is None else argv
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if {"-h", "--help"} & set(before):
        print(help_text(protocol))
        return DONE
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return run_until_stopped(lambda: exit_code(lambda: _run(protocol, arguments)))


def _run(protocol: str, arguments: Sequence[str]) -> int:
    from dplq.experiments.carry_out import carry_out

    if not arguments:
        first = "SOURCE" if PROTOCOLS[protocol].targets else "DATASET"
        print(
            f"No {first} given: this is the built-in demo ({first} {DATASET}). --help explains the"
            " rest.",
            flush=True,
        )
        arguments = [DATASET]
    caller = Path(os.environ.get(CALLER_VARIABLE) or os.getcwd())
    return carry_out(make_plan([request_of(protocol, arguments, os.environ, caller)]))
