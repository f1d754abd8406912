"""The attributes of a dataset: its data, its split, its datasheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from .protocol import FRACTIONS
from .splits import FOREIGN_NAMES


class Declaration:
    """Attributes that a declaration may set; all but the first two have a default.

    The data:
        dataset_dir: folder under `cfg.DATASET.ROOT`. On an instance: its absolute path.
        class_table: per class in official label order its prompt name, then its folder spellings
            (case, spaces, `_` and `-` do not count).
        class_file: instead of the table, a file in `dataset_dir` with lines `folder prompt name`
            in label order. The label number is a folder spelling then, too.
        partial: which classes may be absent and are left out then: prompt names, or True for any.
        image_roots: folders in `dataset_dir` that may hold the class folders, searched after
            `<dataset_dir>/<dataset_dir>/` (DPLQ's layout) and `<dataset_dir>/` itself, or
            patterns of another layout (`layouts.py`). A tuple names folders that are merged.
        mask_files: patterns of the files beside a class's images that are none of them, by name.

    The split:
        split_files: names of the split files of other projects, `{}` for the dataset's.
        split_url: where the published split file is.
        needs_split: nothing is loaded without it.
        fractions: of train and val in a new split; the rest is test.
        split_folders: train, val and test folder in an image root whose split is kept; "" for no
            val folder.
        list_files, list_line, list_image: the same from text files; see
            `official.split_from_lists`.
        val_from: what val is made of where folders or lists have none; see `official.fill_val`.
        test_only: every image is test; no split, no shots, no base and new classes.
        v2_name: name of a variant that is; `declare` makes it.
        also_called: further names under which both are registered.

    `DATASET.PROTOCOL reference`, the known behaviour of the originals where it differs:
        reference_prompts: the prompt per folder name, exactly as on disk.
        reference_v2_prompts: the same of the variant, if it differs from that.
        reference_split_folders, reference_template: in place of `split_folders`, `template`.

    The datasheet, "unknown" or None where it is not known:
        domain: `remote sensing`, `medical`, `SAR` or `natural`.
        modality: what made the images.
        template: zero-shot prompt.
        total_images: how many there are.
        images_per_class: how many in every class, or in each, by label.
        image_size: width and height in pixels, if one size prevails.
        homepage, licence, citation: of the data.
        download: (URL, MD5 or SHA-256 or "", file name) of what may be downloaded without consent;
            empty: by hand.
    """

    dataset_dir: str = ""
    class_table: ClassVar[Sequence[Sequence[str]]] = ()
    class_file: ClassVar[str] = ""
    partial: ClassVar[Literal[True] | tuple[str, ...]] = ()
    image_roots: ClassVar[Sequence[str | tuple[str, ...]]] = ("images", "Images")
    mask_files: ClassVar[tuple[str, ...]] = ()

    split_files: ClassVar[Sequence[str]] = FOREIGN_NAMES
    split_url: ClassVar[str] = ""
    needs_split: ClassVar[bool] = False
    fractions: ClassVar[tuple[float, float]] = FRACTIONS
    split_folders: Sequence[str] = ()
    list_files: ClassVar[Sequence[str]] = ()
    list_line: ClassVar[str] = ""
    list_image: ClassVar[str] = "{file}"
    val_from: ClassVar[str] = "train"
    test_only: bool = False
    v2_name: ClassVar[str] = ""
    also_called: ClassVar[tuple[str, ...]] = ()

    reference_prompts: ClassVar[Mapping[str, str]] = {}
    reference_v2_prompts: ClassVar[Mapping[str, str] | None] = None
    reference_split_folders: ClassVar[Sequence[str]] = ()
    reference_template: ClassVar[str] = ""

    domain: ClassVar[str] = "unknown"
    modality: ClassVar[str] = "unknown"
    template: str = "a photo of {}."
    total_images: ClassVar[int | None] = None
    images_per_class: ClassVar[int | tuple[int, ...] | None] = None
    image_size: ClassVar[tuple[int, int] | None] = None
    homepage: ClassVar[str] = "unknown"
    licence: ClassVar[str] = "unknown"
    citation: ClassVar[str] = "unknown"
    download: ClassVar[Sequence[tuple[str, str, str]]] = ()

    file_name: ClassVar[str] = ""  # set on a class that is another's under a further name
