"""Help texts of the bash scripts."""

from __future__ import annotations

from dplq.experiments.protocols import trainers
from dplq.experiments.requests.request import PROTOCOLS
from dplq.experiments.transfer import CROSS, WHOLE
from dplq.io.protocols import read_protocols

RUNS = "OUT/base2new/{train_base,test_new,test_all}/DATASET/shots_SHOTS/TRAINER/CFG/seedSEED"
WHAT = {  # of the script of a protocol, whose name has _ for -
    "base2new": f"""\
Train on the base classes of DATASET, test on base and on new classes, and print the table of base
and new accuracy and their harmonic mean H. Results:
{RUNS}""",
    "compare": f"""\
Base-to-new generalisation of all trainers on DATASET, in one table: base and new accuracy, their
harmonic mean H, learnable parameters, seconds per training step, peak memory and checkpoint size.
The runs are those of base2new.sh, which are shared:
{RUNS}""",
    "few-shot": """\
Train on all classes of DATASET with 1, 2, 4, 8 and 16 images per class, test on all classes, print
the table of accuracy over shots, and draw the curve: OUT/DATASET/few_shot.png. Zero-shot trainers
use no training image: they are run once, and are the dashed lines. Results:
OUT/DATASET/shots_N/TRAINER/CFG/seedSEED""",
    "cross-dataset": """\
Train on all classes of SOURCE, test on the test images of other datasets with their own classes,
and print the table. Results: OUT/SOURCE/shots_SHOTS/TRAINER/CFG/seedSEED (shared with few_shot.sh)
and OUT/evaluation/SOURCE/TRAINER/CFG_SHOTSshots/TARGET/seedSEED""",
    "domain-generalization": """\
Train on all classes of SOURCE, test on all images (training images included) of other datasets
with their own classes: the ...v2 datasets. Print the table. Results:
OUT/SOURCE/shots_SHOTS/TRAINER/CFG/seedSEED (shared with few_shot.sh and cross_dataset.sh) and
OUT/evaluation/SOURCE/TRAINER/CFG_SHOTSshots/TARGET/seedSEED""",
}
GENERALISED = """
  GENERALISED  yes: test the model of the base classes among all class names together, too; not for
               trainers that only know the classes they were trained on (no)"""
TARGETS = """
  TARGETS      files of configs/datasets
               ({})"""
DEFAULT_TARGETS = {
    CROSS: "the other datasets of SOURCE's domain that lie under DATA",
    WHOLE: "the v2 datasets of SOURCE's domain that lie under DATA, but its own",
}
TEXT = """usage: bash scripts/{script}.sh [{first} [SEED ...]] [-- KEY VALUE ...]

{what}

  {first:<12} a file of configs/datasets, without .yaml, or the NAME in it; capitals
               do not matter.
               Without any argument: the built-in demo, demo_aerial, which needs no data and
               no downloads
  SEED         whole numbers; default: 1 2 3
  KEY VALUE    settings that override the config files, e.g. -- OPTIM.MAX_EPOCH 5. An existing
               relative path is found from the current directory: one with a slash (dir/x.pt,
               local-dir:dir/x, NAME:dir/x.pt), or any file for a key ending in WEIGHTS.

Environment (default):
  DATA         folder of the datasets (data)
  OUT          folder for the results (output)
  TRAINERS     folders of configs/trainers; TRAINER is the same for one
               ({trainers})
  CFG          a file of configs/trainers/TRAINER, without .yaml; CFG_CoOp and the like for one of
               several trainers (demo for the built-in datasets, else as in configs/protocols.yaml)
  SHOTS        training images per class; -1 takes all ({shots}){more}
  PYTHON       the Python to run (python)
DATA, OUT and PYTHON may be relative to the current directory, which may be any. Lists (seeds,
TRAINERS, SHOTS, TARGETS) are separated by white space, line breaks included; what is given twice is
run once. `dplq run` does the same without bash, on several GPUs or a cluster, and from a file.

A run is finished when its folder holds a whole results.json; it is then not repeated. To go on
after a failure or a signal (Ctrl-C, kill), give the same command again. settings.txt in the folder
of a run records how it was made: a run with other settings, there or for another seed beside it, is
refused, so that no two are mixed; give another OUT, or remove the folder. A folder with neither
results.json nor prompt_learner/ (a run that failed early) refuses nothing. While a run goes on in a
folder, a second one there is refused, with the process id and host of the first. A run that fails
stops those alone that test its model.
Exit code: 0 done, 2 wrong arguments or settings, 130 Ctrl-C, 143 or 129 SIGTERM or SIGHUP, else the
code of the first run that failed."""


def help_text(protocol: str) -> str:
    """Return the help text of a protocol's script."""
    default = PROTOCOLS[protocol]
    more = GENERALISED if default.configs == "base2new" else ""
    if default.targets:
        more = TARGETS.format(DEFAULT_TARGETS[default.targets])
    names = default.trainers
    if names == ("all",):
        names = tuple(dict.fromkeys([*read_protocols(), *trainers()]))
    return TEXT.format(
        script=protocol.replace("-", "_"),
        first="SOURCE" if default.targets else "DATASET",
        what=WHAT[protocol],
        trainers=" ".join(names),
        shots=" ".join(map(str, default.shots)),
        more=more,
    )
