"""The page of a folder with many runs."""

from __future__ import annotations

from dplq.cli.report import main
from tests.report.runs import Page, table, write_run


def out_folder(tmp_path, all_shots=(2, 8)):
    for shots in all_shots:
        for seed in (1, 2):
            folder = tmp_path / f"out/Lakes & co/shots_{shots}/CoOp/tiny/seed{seed}"
            write_run(folder, table(seed=seed), shots=shots, seed=seed)
    return tmp_path / "out"


def test_tables_curves_and_links(tmp_path):
    out = out_folder(tmp_path)
    assert main([str(out), "--no-images"]) == 0
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert links[0] == "Lakes%20%26%20co/shots_2/CoOp/tiny/seed1/report.html"
    assert len(links) == 4
    assert (out / "Lakes & co/shots_8/CoOp/tiny/seed2/report.html").is_file()
    assert (
        len(page.all("table"))
        == len([p for p in page.all("p") if p.get("class") == "caption"])
        == 3
    )
    assert all(t["aria-label"] for t in page.all("table"))
    assert len(page.all("figure")) == 1
    assert "Accuracy on Lakes over training images per class: CoOp." in [
        d.get("aria-label") for d in page.all("div")
    ]
    accuracies = [100 * (t.labels == t.predictions).mean() for t in map(_of_seed, (1, 2))]
    assert f"{sum(accuracies) / 2:.2f} \N{PLUS-MINUS SIGN}" in page.text


def test_one_seed_has_no_spread_and_links_name_folders(tmp_path):
    for name in ("one", "two"):
        write_run(tmp_path / "out" / name, table(), trainer=name)
    assert main([str(tmp_path / "out"), "--index-only"]) == 0
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "\N{PLUS-MINUS SIGN} -" not in html
    assert "&plusmn; -" not in html
    assert "np.std" not in html
    (tmp_path / "out/one/report.html").write_text("x", encoding="utf-8")
    assert main([str(tmp_path / "out"), "--index-only"]) == 0
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert '<a href="one/report.html">one</a>' in html


def _of_seed(seed):
    return table(seed=seed)


def test_index_only_links_the_pages_that_are_there(tmp_path):
    out = out_folder(tmp_path)
    folder = out / "Lakes & co/shots_2/CoOp/tiny/seed1"
    assert main([str(folder), "--no-images"]) == 0
    assert main([str(out), "--index-only", "--out", str(tmp_path / "all.html")]) == 0
    page = Page((tmp_path / "all.html").read_text(encoding="utf-8"))
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert links == ["out/Lakes%20%26%20co/shots_2/CoOp/tiny/seed1/report.html"]
    assert not (folder.parent / "seed2/report.html").exists()


def test_a_damaged_run_is_named_and_the_others_are_made(tmp_path, caplog):
    out = out_folder(tmp_path, [2])
    bad = out / "Lakes & co/shots_2/CoOp/tiny/seed1"
    (bad / "predictions.csv").write_bytes(b"nonsense")
    assert main([str(out), "--no-images"]) == 1
    assert f"no page of {bad}" in caplog.text
    assert (out / "report.html").is_file()
    assert (bad.parent / "seed2/report.html").is_file()
