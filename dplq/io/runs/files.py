"""Names of the files in a run's folder; `docs/protocol.md` says what is in them.

A module of names, because readers of finished runs need neither the lock nor the identity.
"""

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
REPORT_FILE = "report.html"  # the page of the run
WEB_PAGES = "report*.html"  # that, and of tests in its folder
