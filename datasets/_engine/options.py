"""What a config says about a dataset, read once, with defaults for the keys of other projects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dplq.errors import UserError
from dplq.host.checks import check_section
from dplq.images.settings import ReadSettings, read_settings
from dplq.io.table_files import TABLES

from .tables import Columns

NO_GROUPS = "none"
PATIENT = "PatientID"  # the groups are those of DICOM files
SPLIT_SUFFIXES = (".json", *TABLES)  # of DATASET.SPLIT_FILE


@dataclass(frozen=True)
class Options:
    """The keys `DATASET.*`, `INPUT.*` and `SEED` that a dataset reads.

    Attributes:
        protocol: `ours` or `reference`.
        split_file: table or JSON with the split, relative to the data folder.
        columns: names of the table's columns.
        group: regular expression that finds the group in a path; `PatientID`: that of DICOM
            files; `none`: no groups.
        all_test: every image is a test image.
        skip_empty: leave classes without an image out.
        shots: images per class; below 1 all.
        seed: of the shots; below 0 a new one.
        subset: `all`, `base` or `new` classes.
        check_images: decode every image before the run.
        skip_broken: leave out images that cannot be decoded.
        reading: how images are read.
    """

    protocol: str = "ours"
    split_file: str = ""
    columns: Columns = field(default_factory=Columns)
    group: str = ""
    all_test: bool = False
    skip_empty: bool = False
    shots: int = -1
    seed: int = -1
    subset: str = "all"
    check_images: bool = True
    skip_broken: bool = False
    reading: ReadSettings = field(default_factory=ReadSettings)

    @classmethod
    def of(cls, cfg: Any) -> Options:
        """Return the options of a Dassl config; keys that it lacks have the defaults.

        Raises:
            UserError: a key has a value that it cannot have.
        """
        check_section(cfg, "DATASET")
        given, default = cfg.DATASET, cls()

        def key(name: str, otherwise: Any) -> Any:
            return getattr(given, name, otherwise)

        columns = key("COLUMNS", {})
        options = cls(
            protocol=key("PROTOCOL", default.protocol),
            split_file=key("SPLIT_FILE", default.split_file),
            columns=Columns(**{name.lower(): columns[name] for name in columns}),
            group=key("GROUP", default.group),
            all_test=key("ALL_TEST", default.all_test),
            skip_empty=key("SKIP_EMPTY_CLASSES", default.skip_empty),
            shots=key("NUM_SHOTS", default.shots),
            seed=getattr(cfg, "SEED", default.seed),
            subset=key("SUBSAMPLE_CLASSES", default.subset),
            check_images=key("CHECK_IMAGES", default.check_images),
            skip_broken=key("SKIP_BROKEN", default.skip_broken),
            reading=read_settings(getattr(cfg, "INPUT", None)),
        )
        if options.split_file and not options.split_file.lower().endswith(SPLIT_SUFFIXES):
            raise UserError(
                f"DATASET.SPLIT_FILE is '{options.split_file}', but must end in "
                f"{' or '.join(TABLES)} (a table) or .json (a split in CoOp's format). Save it "
                "as one of these; a spreadsheet as 'CSV UTF-8'."
            )
        return options

    def unused(self, *, has_table: bool, all_tested: bool) -> list[str]:
        """Return in words which keys were set, but have no effect.

        Args:
            has_table: whether a table is read.
            all_tested: whether the dataset is declared to be tested as a whole.
        """
        texts = []
        if self.columns != Columns() and not has_table:
            texts.append("DATASET.COLUMNS is not used: no table is read")
        if self.split_file and all_tested:
            texts.append("DATASET.SPLIT_FILE is not used: every image is tested")
        return texts
