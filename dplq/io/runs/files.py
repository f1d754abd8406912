"""Names of the files in a run's folder; `docs/protocol.md` says what is in them.

A module of names, because readers of finished runs need neither the lock nor the identity.
"""

import fnmatch

RUN_FILE = "run.json"  # whose the folder is
RESULTS, PREDICTIONS = "results", "predictions"  # stems: results-A.json has predictions-A.csv
RESULTS_FILE = f"{RESULTS}.json"  # of the finished run
TESTS = f"{RESULTS}-*.json"  # of tests in the folder of a training run
PREDICTIONS_FILE = f"{PREDICTIONS}.csv"
MOST_NUMBERS = 20_000_000  # probabilities in a file of predictions: about 250 MB
PREDICTIONS_OF_TESTS = f"{PREDICTIONS}-*.csv"
SEED_FILE = "seed.txt"  # of a run without --seed
SETTINGS_FILE = "settings.txt"  # of a script's run; the script compares it with a later call
MODEL_FOLDER = "prompt_learner"  # of the checkpoints
RESUME_FILE = "resume.safetensors"  # there: the state after the last epoch
PREVIOUS_RESUME_FILE = "resume-previous.safetensors"  # the one before, while that is written
CURVES_FOLDER = "tensorboard"
CHECKPOINTS = (f"{MODEL_FOLDER}/*.safetensors", "*/model*.pth.tar*")  # ours, and others'
EPOCHS_FILE = "metrics.csv"  # a line per epoch of a training
TRACKING_FILE = "tracking.json"  # ids of the run at tracking services
SHARE_FOLDER = "share"  # of `dplq share`, which may be a clone of a repository
WANDB_FOLDER = "wandb"  # what Weights & Biases keeps of the run
REPORT_FILE = "report.html"  # the page of the run
REPORTS_OF_TESTS = "report-*.html"
# What a run and its tests write, but for `RUN_FILE`, `FOLDERS` and the logs.
WRITTEN = (
    *(RESULTS_FILE, TESTS, PREDICTIONS_FILE, PREDICTIONS_OF_TESTS, REPORT_FILE, REPORTS_OF_TESTS),
    *(SEED_FILE, SETTINGS_FILE, EPOCHS_FILE, TRACKING_FILE, "cmat.pt", *CHECKPOINTS),
)
FOLDERS = (MODEL_FOLDER, CURVES_FOLDER, WANDB_FOLDER)
LOGS = "log.txt*"


def is_written_by_run(name: str) -> bool:
    """Return whether a run writes a file of this name.

    Args:
        name: relative to the folder of the run, with forward slashes.
    """
    if name.partition("/")[0] in FOLDERS:
        return True
    patterns = (RUN_FILE, LOGS, *WRITTEN)
    return any(
        name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
        for pattern in patterns
    )
