"""Compare one training step of our trainers with the originals'.

ViT-B/16, the same random weights on both sides.

python benchmarks/peer_equality.py --peers FOLDER

FOLDER contains checkouts of the originals (CoOp, multimodal-prompt-learning, PromptSRC, KgCoOp,
Prompt-align, Textual-based_Class-aware_prompt_tuning, BiomedCoOp) and of Dassl.pytorch; missing
ones are skipped. Needs about 8 GB of memory and disk.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from tests.references.originals import CASES, WORDS, Bench, Case, compare
from tests.references.run_original import FALLBACK, run_trainers

COLUMNS = ("trainer", "repository", "learnable", "logits", "gradients", "weights", "their change")
PROMPTSRC = {
    **WORDS,
    **dict.fromkeys(("N_CTX_TEXT", "N_CTX_VISION"), 4),
    **dict.fromkeys(("PROMPT_DEPTH_TEXT", "PROMPT_DEPTH_VISION"), "some"),
    **{"TEXT_LOSS_WEIGHT": 25, "IMAGE_LOSS_WEIGHT": 10, "GPA_MEAN": 15, "GPA_STD": 1},
}


def main() -> None:
    """Run the command line: print one row per trainer and setting."""
    from tabulate import tabulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True, help="folder with the checkouts")
    parser.add_argument("--layers", type=int, default=12, help="depth of both towers (default: 12)")
    options = parser.parse_args()
    cases = {**CASES, "PromptSRC": Case("PromptSRC", "promptsrc", "PromptSRC", PROMPTSRC)}
    os.environ["DPLQ_PEERS"] = str(options.peers)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), layers=options.layers, image_size=224)
        for tree in sorted({case.tree for case in cases.values()}):
            if not (options.peers / tree).is_dir():
                print(f"{tree} is not in {options.peers}: skipped", file=sys.stderr)
                continue
            chosen = {name: case for name, case in cases.items() if case.tree == tree}
            runs = [bench.run(case) for case in chosen.values()]
            dassl = options.peers / next(iter(chosen.values())).dassl
            dassl_root = dassl if dassl.is_dir() else FALLBACK
            answers = run_trainers(options.peers / tree, bench.clip, runs, dassl_root)
            for (name, case), answer in zip(chosen.items(), answers, strict=True):
                size = sum(t.numel() for key, t in answer.items() if key.startswith("state."))
                figures = vars(compare(bench, case, answer)).values()
                rows.append((name, tree, f"{size:,}", *(f"{figure:.1e}" for figure in figures)))
    print("Largest absolute difference over largest absolute value, fp32:")
    print(tabulate(rows, COLUMNS, tablefmt="github"))


if __name__ == "__main__":
    main()
