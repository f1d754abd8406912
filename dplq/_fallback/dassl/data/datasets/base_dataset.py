"""`Datum`, the record of an image, and the base class of datasets.

CoOp and its successors pickle lists of `Datum`. Its module, name and private attribute names are
the real Dassl's, so that those files can be read under either.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from dassl.utils import InputError, MissingFileError, check_availability, mkdir_if_missing
from dassl.utils import download_url as fetch


class Datum:
    """Record of an image: file, label, domain and class name.

    Args:
        impath: image file, which must exist.
        label: class, 0-based.
        domain: domain, 0-based.
        classname: name of the class, as used in prompts.
    """

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""):
        if not isinstance(impath, str):
            raise InputError(f"impath must be a string, got {type(impath).__name__}")
        if not os.path.isfile(impath):
            raise MissingFileError(f"image file not found: {impath!r}")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    impath = property(attrgetter("_impath"), doc="Image file.")
    label = property(attrgetter("_label"), doc="Class, 0-based.")
    domain = property(attrgetter("_domain"), doc="Domain, 0-based.")
    classname = property(attrgetter("_classname"), doc="Name of the class.")


class DatasetBase:
    """Base class of datasets: lists of `Datum` for each split, and the class names.

    Args:
        train_x: labelled training images; classes and names are those of these.
        train_u: unlabelled training images.
        val: validation images.
        test: test images.
    """

    dataset_dir = ""  # folder under DATASET.ROOT
    domains: Sequence[str] = []  # names of all domains

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ):
        if not train_x:
            raise InputError(
                f"{type(self).__name__}: there is no training image (folder "
                f"'{self.dataset_dir}'; check DATASET.ROOT and the split file)"
            )
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    train_x = property(attrgetter("_train_x"), doc="Labelled training images.")
    train_u = property(attrgetter("_train_u"), doc="Unlabelled training images, or None.")
    val = property(attrgetter("_val"), doc="Validation images, or None.")
    test = property(attrgetter("_test"), doc="Test images.")
    lab2cname = property(attrgetter("_lab2cname"), doc="Dict: label -> class name.")
    classnames = property(attrgetter("_classnames"), doc="Class names in order of label.")
    num_classes = property(attrgetter("_num_classes"), doc="Largest label + 1.")

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """Return the largest label + 1."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return label -> class name (sorted by label), and the names in that order."""
        names = {item.label: item.classname for item in data_source}
        mapping = {label: names[label] for label in sorted(names)}
        return mapping, list(mapping.values())

    def check_input_domains(self, source_domains: Sequence, target_domains: Sequence) -> None:
        """Raise InputError unless both lists are non-empty and hold known domains."""
        for key, chosen in (("SOURCE", source_domains), ("TARGET", target_domains)):
            if not chosen:
                raise InputError(f"DATASET.{key}_DOMAINS is empty")
            self.is_input_domain_valid(chosen)

    def is_input_domain_valid(self, input_domains: Iterable[str]) -> None:
        """Raise ChoiceError if a domain is not one of `domains`."""
        for domain in input_domains:
            check_availability(domain, self.domains, "domain")

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download an archive and unpack it beside itself; files of the same names are replaced.

        Args:
            url: address; of Google Drive (needs the package gdown) or any other.
            dst: path of the archive: .zip, .tar, .tar.gz, ...
            from_gdrive: which of the two.

        Raises:
            UserError: the archive is damaged, refused (links, paths outside the folder, far too
                large) or of another format.
        """
        folder = os.path.dirname(dst)
        mkdir_if_missing(folder)
        if from_gdrive:
            import gdown

            gdown.download(url, dst, quiet=False)
        else:
            fetch(url, dst)
        print("Extracting file ...")
        from dplq.data.unpack import unpack_over

        unpack_over(Path(dst), Path(folder))
        print(f"File extracted to {folder}")

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Any:
        """Draw the same number of images of every class, with Python's `random`.

        Args:
            *data_sources: one or several lists.
            num_shots: images per class; less than 1: the lists are returned as they are.
            repeat: a class with too few images is drawn with repetition; else all are used.

        Returns:
            The sample, or for several lists a list of samples.
        """
        samples: Sequence[list[Datum]] = data_sources
        if num_shots >= 1:
            print(f"Creating a {num_shots}-shot dataset")
            samples = [self._draw(source, num_shots, repeat) for source in data_sources]
        return samples[0] if len(samples) == 1 else samples

    def _draw(self, data_source: list[Datum], num_shots: int, repeat: bool) -> list[Datum]:
        sample: list[Datum] = []
        for items in self.split_dataset_by_label(data_source).values():
            if len(items) >= num_shots:
                sample += random.sample(items, num_shots)
            else:
                sample += random.choices(items, k=num_shots) if repeat else items
        return sample

    def split_dataset_by_label(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Group by label, in order of first appearance."""
        return _group(data_source, "label")

    def split_dataset_by_domain(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Group by domain, in order of first appearance."""
        return _group(data_source, "domain")


def _group(data_source: Iterable[Datum], attribute: str) -> dict[int, list[Datum]]:
    groups: dict[int, list[Datum]] = defaultdict(list)
    for item in data_source:
        groups[getattr(item, attribute)].append(item)
    return groups
