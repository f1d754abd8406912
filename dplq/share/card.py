"""Model card: README.md with the Hub's metadata."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dplq.io.shared import CLASSES, CONFIG, METRICS, PROMPTS
from dplq.io.spec import LOCAL_DIR
from dplq.share.origins import UNKNOWN, Origin
from dplq.share.source import Source

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

INSTALL = "pip install quaternion-prompt"
SHOWN_CLASSES = 100  # of a card; the file has all
PLACE = "FOLDER"  # in the snippets, where no repository is named
# What Markdown takes for markup; "_" inside a word is none.
MARKUP = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")


def model_card(
    source: Source, parts: list[Origin], data: list[Origin], *, place: str, licence: str
) -> ModelCard:
    """Return the card of a shared model.

    Args:
        source: what is shared.
        parts: its frozen parts.
        data: the datasets it was trained and tested on.
        place: ``hf-hub:org/name``, or "" for a folder.
        licence: the Hub's id of the learned state's licence; "": none is stated.
    """
    from huggingface_hub import ModelCard, ModelCardData

    name = _title(source, place)
    hub_parts = [part.hub for part in parts if part.hub]
    hub_data = [one.hub for one in data if one.hub]
    metadata = ModelCardData(
        base_model=hub_parts or None,
        datasets=hub_data or None,
        eval_results=_evaluations(source, data) or None,
        library_name="dplq",
        license=licence or None,
        metrics=["accuracy", "f1"] if source.tests else None,
        model_name=name,
        pipeline_tag=(
            "zero-shot-image-classification" if source.any_classes else "image-classification"
        ),
        tags=["dplq", "clip", "prompt-learning", source.header["method"]],
    )
    sections = [
        f"# {_plain(name)}",
        _what(source),
        _use(source, parts, place or PLACE),
        _numbers(source),
        _licences(parts, data, licence),
        _files(source),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n")


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return MARKUP.sub(r"\\\g<0>", html.escape(" ".join(text.split()), quote=False))


def _title(source: Source, place: str) -> str:
    if place:
        return place.partition("/")[2]
    return " ".join(filter(None, [source.header["method"], source.dataset]))


def _evaluations(source: Source, data: list[Origin]) -> list[Any]:
    """Return the numbers of each test for the Hub's leaderboards, as fractions."""
    from huggingface_hub import EvalResult

    hubs = {one.name: one.hub for one in data}
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=hubs.get(test["dataset"]) or test["dataset"].lower(),
            dataset_name=_tested(test),
            dataset_split=test.get("split", "test"),
            metric_type=kind,
            metric_name=title,
            metric_value=test[key] / 100,
        )
        for test in source.tests
        for key, kind, title in (
            ("accuracy", "accuracy", "top-1 accuracy"),
            ("macro_f1", "f1", "macro-F1"),
        )
        if key in test
    ]


def _tested(test: dict[str, Any]) -> str:
    part = "" if test["subsample"] == "all" else f", {test['subsample']} classes"
    return f"{test['dataset']}{part}"


def _what(source: Source) -> str:
    header, names = source.header, source.header["classnames"]
    clip = _plain(header["backbone"]["name"])
    trained = f" on {_plain(source.dataset)}" if source.dataset else ""
    few = f" with {source.shots} images per class" if source.shots > 0 else ""
    listed = ", ".join(map(_plain, names[:SHOWN_CLASSES]))
    more = (
        f" and {len(names) - SHOWN_CLASSES} more ({CLASSES})" if len(names) > SHOWN_CLASSES else ""
    )
    other = (
        "Other class names can be given without training."
        if source.any_classes
        else "It cannot name other classes."
    )
    return (
        f"{header['method']} for CLIP {clip}, trained{trained}{few} with "
        f"[dplq](https://arxiv.org/abs/2312.08878). It classifies images; only what was learned is "
        f"here, the frozen models are loaded from their own sources.\n\n"
        f"**{len(names)} classes:** {listed}{more}. {other}"
    )


def _local(entry: Mapping[str, Any]) -> str:
    """Return the file or folder of a frozen part; "" where its name alone suffices."""
    name = str(entry.get("name", ""))
    folder = name.removeprefix(LOCAL_DIR) if name.startswith(LOCAL_DIR) else ""
    return str(entry.get("weights") or folder)


def _use(source: Source, parts: list[Origin], place: str) -> str:
    load, predict = [json.dumps(place)], ["dplq", "predict", place]
    for part, key in (("backbone", "weights"), ("domain", "domain_weights")):
        entry = source.header[part] or {}
        several = entry.get("parts")
        local: Any = [_local(one) for one in several] if several else _local(entry)
        if local and (not several or any(local)):
            given = json.dumps(local, ensure_ascii=False)
            load.append(f"{key}={given}")
            predict += [f"--{key.replace('_', '-')}", given if several else local]
    needed = [f"{_plain(part.name)} ({part.role})" for part in parts if part.by_hand]
    note = f"\n\nNot downloaded by these commands: {', '.join(needed)}." if needed else ""
    return (
        f"## Use\n\n```bash\n{INSTALL}\n{shlex.join(predict)} images/\n```\n\n"
        f"```python\nimport dplq\n\nmodel = dplq.load({', '.join(load)})\n"
        'for prediction in model.predict(["image.png"]):\n    print(prediction)\n```'
        f"{note}"
    )


def _numbers(source: Source) -> str:
    if not source.tests:
        return "## Numbers\n\nNo test of this checkpoint is known."
    rows = [
        f"| {_plain(_tested(test))} | {test.get('split', 'test')} | {test.get('total', '')} | "
        f"{test['accuracy']:.2f} | {_percent(test.get('macro_f1'))} |"
        for test in source.tests
    ]
    seed = source.tests[0].get("seed")
    return (
        "## Numbers\n\n| data | split | images | accuracy, % | macro-F1, % |\n"
        "| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + f"\n\nOne run, seed {seed}. "
        f"{METRICS} has the numbers of each class and of the run."
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _licences(parts: list[Origin], data: list[Origin], licence: str) -> str:
    own = licence or "none was stated (`dplq share --license`)"
    rows = [
        f"| {one.role} | {_linked(one)} | {one.licence} | {one.terms()} |"
        for one in (*parts, *data)
    ]
    unknown = [_plain(one.name) for one in (*parts, *data) if one.licence == UNKNOWN]
    note = (
        f"\n\nNot known is the licence of {', '.join(unknown)}: ask its source before you use it."
        if unknown
        else ""
    )
    return (
        f"## Licences\n\nThe learned state of this repository: {own}. It was made with the "
        "following, whose licences hold beside it.\n\n| part | name | licence | asks |\n"
        "| --- | --- | --- | --- |\n" + "\n".join(rows) + note
    )


def _linked(one: Origin) -> str:
    name = _plain(one.name)
    return f"[{name}]({one.page})" if one.page.startswith("http") else name


def _files(source: Source) -> str:
    rows = {
        PROMPTS: "the learned state and how to rebuild the model; tensors and JSON, no code",
        CONFIG: "method, frozen parts and settings of the run",
        CLASSES: "the class names, in the order of the logits",
        METRICS: "numbers of the tests; no predictions",
    }
    listed = "\n".join(f"| `{name}` | {what} |" for name, what in rows.items())
    return f"## Files\n\n| file | content |\n| --- | --- |\n{listed}"
