"""benchmarks/fair_table.py with a stand-in for the script: which calls, which rows, where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fair_table, script_runs
from dplq.errors import UserError
from dplq.experiments.protocols import trainers

BASES = {"MaPLe": 80.0, "TipAdapter": 90.0, "ZeroshotCLIP": 50.0}
COMPOSITE = "TipAdapter + ZeroshotCLIP (composite)"
PARTS = {"train_base": "base", "test_new": "new", "test_all": "all"}


@pytest.fixture
def calls(monkeypatch):
    """Write results where the script would, without running it; return the calls."""
    found = []

    def base2new(dataset, seeds, settings, environment, folder):
        found.append((dataset, list(seeds), settings, environment, folder))
        trainer, config = environment["TRAINERS"], environment["CFG"]
        if trainer == "CoOp":
            raise RuntimeError("CoOp failed: of bad luck")
        closed = trainer == "TipAdapter"
        for part, subset in list(PARTS.items())[: 1 if closed else 3]:
            for seed in (*seeds, 7):  # of an earlier call
                place = f"base2new/{part}/{dataset}/shots_16/{trainer}/{config}/seed{seed}"
                path = Path(environment["OUT"]) / place / "results.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                result = {
                    **{"format": 1, "trainer": trainer, "dataset": dataset, "shots": 16},
                    **{"subsample": subset, "seed": seed, "learnable_parameters": 1234},
                    "accuracy": (BASES[trainer] if subset == "base" else 60.0) + seed,
                    "generalised": {"base": 70.0, "new": 30.0} if subset == "all" else None,
                    "any_classes": not closed,
                }
                path.write_text(json.dumps(result))

    monkeypatch.setattr(fair_table, "base2new", base2new)
    return found


def test_rows_of_all_fields_between_the_marks(tmp_path, calls, capsys):
    (tmp_path / "fields.yaml").write_text(
        "real:\n  dataset: ucm\n  root: photos\n  options: {INPUT.SIZE: '(112, 112)'}\n"
        "  trainers: {MaPLe: {TRAINER.MAPLE.PROMPT_DEPTH: 4}}\n  leave_out: [ZeroshotCLIP]\n"
    )
    docs = tmp_path / "page.txt"
    docs.write_text("before\n<!-- table -->\nOLD\n<!-- end -->\nafter\n")
    words = ["--fields", str(tmp_path / "fields.yaml"), "--only", "real", "demo_tissue"]
    words += ["--trainers", "MaPLe", "TipAdapter", "ZeroshotCLIP", "--seeds", "1", "2"]
    words += ["--out", str(tmp_path / "out"), "--table", str(docs)]
    assert fair_table.main(words) == 0
    demo, real = "demo", "vit_b16"
    assert {(dataset, e["TRAINERS"], e["CFG"]) for dataset, _, _, e, _ in calls} == {
        ("demo_tissue", "ZeroshotCLIP", demo),
        ("demo_tissue", "ZeroshotCLIP", f"{demo}_ctx"),
        ("demo_tissue", "TipAdapter", demo),
        ("demo_tissue", "MaPLe", demo),
        ("ucm", "TipAdapter", real),
        ("ucm", "MaPLe", f"{real}_c2_ep5_batch4_2ctx"),
    }
    (maple,) = (call for call in calls if call[0] == "ucm" and call[3]["TRAINERS"] == "MaPLe")
    assert maple[1:3] == (
        [1, 2],
        {**fair_table.COLD, "INPUT.SIZE": "(112, 112)", "TRAINER.MAPLE.PROMPT_DEPTH": 4},
    )
    assert maple[3]["DATA"] == "photos"
    assert maple[3]["GENERALISED"] == "yes"
    assert maple[4] == tmp_path
    text = docs.read_text()
    assert text.startswith("before\n<!-- table -->\n\n| field")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "OLD" not in text
    rows = [[c.strip() for c in line.split("|")] for line in text.splitlines() if "|" in line]
    names = [row[1:3] for row in rows[2:]]
    assert names == [
        *(["demo_tissue", name] for name in ("ZeroshotCLIP", "ZeroshotCLIP (ctx)", "TipAdapter")),
        *(["demo_tissue", name] for name in ("MaPLe", COMPOSITE)),
        *(["real", name] for name in ("TipAdapter", "MaPLe")),
    ]
    # seed 7 is not of this table; t is 12.7062 for two seeds
    (tissue, real) = (row for row in rows if row[2] == "MaPLe")
    assert tissue[3] == "81.50 +- 6.35"
    assert tissue[6:9] == ["**70.00 +- 0.00**", "**30.00 +- 0.00**", "**42.00 +- 0.00**"]
    assert real[-4] == "1,234"
    (composite,) = (row for row in rows if row[2] == COMPOSITE)
    assert composite[3:5] == ["**91.50 +- 6.35**", "**61.50 +- 6.35**"]
    assert composite[6:9] == ["-", "-", "-"]
    assert capsys.readouterr().err.count("error") == 0


def test_a_trainer_that_fails_is_named_and_the_others_are_in_the_table(tmp_path, calls, capsys):
    words = ["--only", "demo_aerial", "--trainers", "CoOp", "MaPLe", "--seeds", "1"]
    assert fair_table.main([*words, "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "MaPLe" in shown.out
    assert "error: demo_aerial CoOp demo: CoOp failed: of bad luck" in shown.err


def test_where_all_trainers_fail_the_failures_are_printed_and_the_page_stays(
    tmp_path, calls, capsys
):
    page = tmp_path / "page.txt"
    page.write_text("<!-- table -->\nOLD\n<!-- end -->\n")
    words = ["--only", "demo_aerial", "--trainers", "CoOp", "--seeds", "1", "--table", str(page)]
    assert fair_table.main([*words, "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert errors == [
        "error: demo_aerial CoOp demo: CoOp failed: of bad luck",
        "error: there is no table: no run of these fields has finished",
    ]
    assert shown.out == ""
    assert "OLD" in page.read_text()


def test_failures_are_printed_whatever_becomes_of_the_table(tmp_path, calls, capsys, monkeypatch):
    def broken(*_):
        raise UserError("results of no kind")

    monkeypatch.setattr(fair_table, "runs_of", broken)
    words = ["--only", "demo_aerial", "--trainers", "CoOp", "--seeds", "1"]
    assert fair_table.main([*words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.index("of bad luck") < error.index("error: results of no kind")


def test_a_field_with_a_config_of_its_own_has_plain_names(tmp_path, calls):
    runs = []
    for trainer in ("TipAdapter", "ZeroshotCLIP"):
        call = fair_table.Call("mine", trainer, "small_ctx" if "CLIP" in trainer else "small")
        field = fair_table.Field(dataset="demo_aerial", config="small")
        fair_table.run(call, field, tmp_path, tmp_path, [1, 2], 16)
        runs += fair_table.runs_of(call, field, tmp_path, [1, 2], 16)
    table = fair_table.make_table({"mine": runs}, {"mine": field})
    assert [line.labels["trainer"] for line in table.lines] == [
        *("TipAdapter", "ZeroshotCLIP (ctx)"),
        "TipAdapter + ZeroshotCLIP (ctx) (composite)",
    ]


def test_all_trainers_are_found(calls, tmp_path):
    made = fair_table.calls_of(fair_table.FIELDS, trainers(), 16)
    assert {call.trainer for call in made if call.field == "demo_aerial"} == set(trainers())
    folder = script_runs.ROOT / "configs/trainers"
    assert all((folder / call.trainer / f"{call.config}.yaml").is_file() for call in made)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("demo_aerial: {dataset: ucm}", "the field demo_aerial is built in"),
        ("x: {data: ucm}", "unknown field `data`"),
        ("x: {dataset: ucm, trainers: {MaPle: {A: 1}}}", "'MaPle'. Did you mean 'MaPLe'?"),
        ("x: {dataset: ucm, leave_out: [Nobody]}", "names the trainer 'Nobody'"),
        ("x: {dataset: ucm, options: {A: [1]}}", "options"),
    ],
)
def test_bad_fields_are_one_line(tmp_path, calls, capsys, content, message):
    path = tmp_path / "fields.yaml"
    path.write_text(content)
    assert fair_table.main(["--fields", str(path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert calls == []


def test_bad_words(tmp_path, calls, capsys):
    def main(*words):
        return fair_table.main([*words, "--out", str(tmp_path / "out")])

    docs = tmp_path / "page.txt"
    docs.write_text("no marks")
    assert main("--table", str(docs)) == 2
    assert "has no lines <!-- table --> and <!-- end -->" in capsys.readouterr().err
    docs.write_text("<!-- end --> <!-- table -->")
    assert main("--table", str(docs)) == 2
    assert "has no lines <!-- table --> and <!-- end -->" in capsys.readouterr().err
    assert main("--table", str(tmp_path / "none.txt")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "No such file" in error
    assert error.count("\n") == 1
    assert main("--table", str(tmp_path)) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main("--jobs", "0") == 2
    assert "--jobs is 0: give 1 or more" in capsys.readouterr().err
    assert main("--only", "demo_arial") == 2
    assert (
        "the field 'demo_arial' is unknown. Did you mean 'demo_aerial'?" in capsys.readouterr().err
    )


def test_tasks_run_in_parallel_but_for_the_first():
    done = []

    def task(name):
        if name == "bad":
            raise RuntimeError(name)
        done.append(name)
        return name.upper()

    tasks = {name: (lambda name=name: task(name)) for name in ("first", "bad", "last")}
    found = dict(script_runs.in_parallel(tasks, 2))
    assert done[0] == "first"
    assert found["first"] == "FIRST"
    assert found["last"] == "LAST"
    assert str(found["bad"]) == "bad"
