"""Page of the published models: ``python -m tools.make_models_table`` writes docs/models.md.

It is made from `dplq/models/published.yaml`; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from dplq.domain.recipes import RECIPES
from dplq.models.catalogue import DOMAINS, KINDS, MIN_MAX, UNKNOWN, PublishedModel, catalogue

PATH = Path(__file__).resolve().parents[1] / "docs/models.md"
INTRODUCTION = """# Published models

CLIPs and domain encoders that this project knows by name. This page is made by
`python -m tools.make_models_table` from `dplq/models/published.yaml`; do not edit it.

```bash
dplq models list --domain medical --kind clip    # the table, in short
dplq models info biomedclip                      # all that is known of one
dplq models get biomedclip                       # download its weights; --to FOLDER: to there
```

`get` ends with the two config lines that use the model:

```text
MODEL.BACKBONE.NAME biomedclip        MODEL.INIT_WEIGHTS PATH      # a CLIP
DOMAIN.ENCODER rad-dino               DOMAIN.WEIGHTS PATH          # an encoder
```

The second line is needed for a file that lies elsewhere: without it the file is searched in
`$DPLQ_CACHE/models/NAME`, then in the cache of huggingface_hub. With it the name supplies the
architecture, the layout of the file, the activation, the normalisation and the pooling. A name
without weights on this machine is refused with the file, where it is had, and the command.
The texts of BiomedCLIP and other models with a text tower of transformers need a tokenizer:
`tokenizer.json` and `tokenizer_config.json`, or BERT's `vocab.txt`, beside the weights, as `get`
puts them; else the hub's.

Hub files are compared with the digest that the hub publishes. Exit codes: 0 done, 1 no automatic
download, 2 bad input or no network. A gated model needs its terms accepted on its page, then
`hf auth login` or `HF_TOKEN`.

## What was tested

No published weights were at hand. For every model the tests build its architecture with the
library or the code that its authors use, reduced in size and with random weights, write a file in
the layout of the public one, load that by the model's name, and compare image features (of CLIPs:
and text features) to 1e-5. For some the full-size architecture is also built without memory, and
its number of bytes compared with the size of the published file (column "file"). Whether the
published numbers are reproduced is not shown by this. Comparisons with an authors' repository or
with torchgeo are skipped where that is not at hand (`DPLQ_PEERS`; tests/models/).

What the publishers do not say is "{unknown}"; a licence is that of the place in brackets.
"""


def models_page() -> str:
    """Return the page as Markdown."""
    titles = {"clip": "CLIPs", "encoder": "Domain encoders"}
    areas = {"medical": "medicine", "remote_sensing": "remote sensing", "general": "general"}
    parts = [INTRODUCTION.format(unknown=UNKNOWN)]
    for kind in KINDS:
        for domain in DOMAINS:
            found = {
                name: model
                for name, model in catalogue().items()
                if (model.kind, model.domain) == (kind, domain)
            }
            if found:
                parts += [f"## {titles[kind]}: {areas[domain]}\n", _table(found)]
    return "\n".join(parts)


def _table(models: dict[str, PublishedModel]) -> str:
    headers = ["name", "model", "file", "licence", "architecture", "input", "tests", "note"]
    rows = [
        [
            f"`{name}`",
            f"[{model.title}]({model.page})",
            _file(model),
            (model.licence or UNKNOWN) + ("; gated" if model.gated else ""),
            _architecture(model),
            _input(model),
            model.test,
            model.note,
        ]
        for name, model in models.items()
    ]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True) + "\n"


def _file(model: PublishedModel) -> str:
    name = Path(model.file or model.url or "").name or UNKNOWN
    size = f" ({model.megabytes} MB)" if model.megabytes else ""
    return f"[{name}]({model.source}){size}"


def _architecture(model: PublishedModel) -> str:
    words = [model.architecture or "of its own", f"layout {model.layout}"]
    if model.kind == "clip":
        words.append(f"activation {model.activation or UNKNOWN}")
    return ", ".join(words)


def _input(model: PublishedModel) -> str:
    side = f"{model.image_size} pixels" if model.image_size else f"size {UNKNOWN}"
    numbers = (
        f"mean {_numbers(model.mean)}, std {_numbers(model.std)}"
        if model.mean and model.std
        else MIN_MAX
        if model.architecture in RECIPES and RECIPES[model.architecture].min_max
        else f"mean and std {UNKNOWN}"
    )
    return f"{side}, {numbers}, pooling {model.pool or UNKNOWN}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in dict.fromkeys(values))


if __name__ == "__main__":
    PATH.write_text(models_page(), encoding="utf-8")
    print(PATH)
