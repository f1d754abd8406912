"""Tokenizers of the transformers library: BERT's, RoBERTa's, SigLIP's.

CLIP's own (`dplq.clip.tokenizer`) comes with open_clip. These need files: from the model's folder,
where it has them, else from the Hugging Face hub. They are loaded when the first text needs them,
so that what takes no text (a linear probe) runs without.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dplq.clip.installed import open_clip, transformers
from dplq.errors import UserError, few, one_line, shown
from dplq.io.files import file_digest, json_digest
from dplq.io.hub import hub_access, hub_problem

logger = logging.getLogger(__name__)
OPTIONS = ("clean", "strip_sep_token")
WORDS = "vocab.txt"  # WordPiece, one token a line
WHOLE = ("tokenizer.json", "tokenizer_config.json")  # any kind
ALONE = ("tokenizer.json", "spiece.model")  # what transformers takes without the other file


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are a tokenizer; none where it has none."""
    for names in (WHOLE, (WORDS,)):
        found = [folder / name for name in names]
        if all(file.is_file() for file in found):
            return found
    return []


class HubTokenizer:
    """A tokenizer of the transformers library: texts to padded ids.

    Args:
        name: on the hub, such as "bert-base-uncased"; "org/name@revision" for a revision.
        length: the most tokens of a text, markers included.
        model: name of the model, for messages.
        folder: the model's own, whose tokenizer files come before the hub's.
        mode: open_clip's `tokenizer_mode`; only the plain one is supported.
        options: open_clip's `tokenizer_kwargs`: `clean` names the text normalisation,
            `strip_sep_token` puts id 0 in place of the end marker (CLIPA).

    Raises:
        UserError: another option.
    """

    def __init__(
        self,
        name: str,
        length: int,
        model: str,
        *,
        folder: Path | None = None,
        mode: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.length, self.model, self.folder = name, length, model, folder
        options, self.mode = options or {}, mode
        if unknown := options.keys() - OPTIONS:
            raise UserError(
                f"{model} sets {few(sorted(unknown))} in tokenizer_kwargs, which is not supported; "
                f"supported are {few(OPTIONS)}"
            )
        self.clean = options.get("clean", "whitespace")
        self.strip_sep_token = options.get("strip_sep_token", False)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids (N, length) long, padded on the right.

        Raises:
            UserError: a text needs more than `length` tokens, or the tokenizer cannot be had.
        """
        tokens = torch.full((len(texts), self.length), self.pad_id, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            ids = self._encode(text)
            if len(ids) > self.length:
                raise UserError(
                    f"the text {shown(text, 500)} has {len(ids)} tokens (markers included), but "
                    f"{self.model} accepts at most {self.length}; shorten the class name, "
                    "CTX_INIT or N_CTX"
                )
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    @property
    def own_files(self) -> list[Path]:
        """Return the files of the model's folder that are the tokenizer; none: the hub's is."""
        return [] if self.folder is None else tokenizer_files(self.folder)

    @cached_property
    def digest(self) -> str:
        """Digest of the model's own files, in hex; "" where the tokenizer is the hub's."""
        files = self.own_files
        if not files and self.folder is not None:
            files = [file for name in ALONE if (file := self.folder / name).is_file()]
        return json_digest({file.name: file_digest(file) for file in files}) if files else ""

    @property
    def pad_id(self) -> int:
        """Return the id of padding."""
        return self._loaded.pad_token_id

    @cached_property
    def markers(self) -> tuple[int, int]:
        """Return the number of markers before and behind a text's own tokens."""
        mask = self._loaded("a", return_special_tokens_mask=True)["special_tokens_mask"]
        before, behind = mask.index(0), mask[::-1].index(0)
        return before, 0 if self.strip_sep_token else behind

    def end(self, tokens: Tensor) -> Tensor:
        """Return the position of each text's last token, (N,) long, of ids (N, L)."""
        marks = tokens != self.pad_id
        if not self.strip_sep_token and self._loaded.pad_token_id == self._loaded.eos_token_id:
            return (~marks).int().argmax(dim=-1)  # SigLIP pads with the end marker: the first is it
        positions = torch.arange(tokens.shape[-1], device=tokens.device)
        return torch.where(marks, positions, 0).amax(dim=-1)

    def count(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each text without markers and padding, (N,) long."""
        return self.end(tokens) + 1 - sum(self.markers)

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return the texts of single tokens, with the library's marks of pieces of words."""
        return [str(token) for token in self._loaded.convert_ids_to_tokens(list(ids))]

    def _encode(self, text: str) -> list[int]:
        clean = open_clip("tokenizer").get_clean_fn(self.clean)
        # one text at a time: an own warning of the library about length would name no text
        ids: list[int] = self._loaded(clean(text), truncation=False, verbose=False)["input_ids"]
        if self.strip_sep_token:
            ids = [0 if i == self._loaded.sep_token_id else i for i in ids]
        return ids

    @cached_property
    def _loaded(self) -> Any:
        """Return the library's tokenizer."""
        if self.mode:
            raise UserError(
                f"{self.model} uses open_clip's tokenizer mode '{self.mode}', which is not "
                "supported: choose a model without it."
            )
        package, folder = transformers(f"the tokenizer of {self.model}"), self.folder
        files = self.own_files
        if folder is not None and len(files) > 1:
            return self._from_folder(package, folder)
        if files:
            logger.info("The tokenizer of %s: WordPiece, lower case, of %s.", self.model, WORDS)
            return package.BertTokenizerFast(str(files[0]), do_lower_case=True)
        try:
            with hub_access():
                return self._from_hub(package)
        except Exception as error:  # the hub client has a dozen kinds, all meaning "not available"
            place = "the folder of the weights, or of local-dir:PATH"
            if folder is not None:
                place = f"'{folder.absolute()}'"
            repository = self.name.partition("@")[0]
            raise UserError(
                f"cannot get the tokenizer '{self.name}' of {self.model} ({hub_problem(error)}); "
                "use a machine with access to the Hugging Face hub once, or put "
                f"{' and '.join(WHOLE)} "
                f"(or, for BERT, {WORDS}) of huggingface.co/{repository} into {place}"
            ) from error

    def _from_hub(self, package: Any) -> Any:
        name, _, revision = self.name.partition("@")
        options = {"revision": revision} if revision else {}
        return package.AutoTokenizer.from_pretrained(name, **options)

    def _from_folder(self, package: Any, folder: Path) -> Any:
        try:
            return package.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # of a damaged file, anything
            raise UserError(
                f"cannot read the tokenizer in '{folder.absolute()}' ({one_line(error)}); get "
                f"{' and '.join(WHOLE)} again"
            ) from error
