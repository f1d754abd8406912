"""Packaging: one top-level name, `dplq`; the folders beside it are installed inside it.

Top-level packages called `datasets` or `trainers` in site-packages would overwrite other people's
(Hugging Face's, a host tree's), so they are mapped to `dplq.datasets`, `dplq.trainers` and
`dplq.configs`.
"""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

# Read, not imported: the package need not be importable while it is built.
(VERSION,) = re.findall(r'^__version__ = "(.+)"', Path("dplq/__init__.py").read_text("utf-8"), re.M)
INSIDE = ("configs", "datasets", "trainers")
REQUIREMENTS = [
    "torch>=2.4",  # add_safe_globals, for weights_only loading
    "torchvision>=0.19",  # the one that goes with torch 2.4
    "open_clip_torch>=2.26.1",  # the first with batch-first towers, which the tests compare with
    "timm>=0.9.16",  # the oldest that was tried
    "safetensors",  # any version
    "yacs>=0.1.8",  # None as a config value
    "filelock>=3.32",  # forked children do not hold, or give back, the lock; fallback_to_soft
    "msgspec>=0.18",  # the oldest that was tried
    "jinja2>=3.1.2",  # what pandas asks for
    "matplotlib",  # any version
    "numpy",  # any version
    "pandas>=2.2",  # the oldest that was tried
    "Pillow>=9.3",  # the oldest that was tried
    "PyYAML",  # any version
    "rich>=12",  # console.Group from 11; the oldest that was tried
    "scikit-learn>=1.2",  # the oldest that was tried
    "scipy>=1.9.3",  # the oldest that was tried
    "tabulate>=0.8.10",  # disable_numparse; the oldest that was tried
    "tensorboard>=2.12",  # older ones cannot be imported beside protobuf 4
    "tifffile",  # any version
    "tqdm",  # any version
]
DIAGRAM_REQUIREMENTS = ["scikit-posthocs>=0.9"]  # keyword arguments of the diagram
HF_REQUIREMENTS = ["transformers>=4.57.1"]  # text towers and tokenizers; the oldest that was tried
ONNX_REQUIREMENTS = ["onnx>=1.23", "onnxscript>=0.7"]  # the oldest that were tried
DICOM_REQUIREMENTS = ["pydicom>=2.4"]  # the oldest that was tried
CLUSTER_REQUIREMENTS = [
    "ray>=2.40",  # the oldest that was tried
    "submitit>=1.4.6",  # the oldest that was tried
]
TRACK_REQUIREMENTS = [
    "wandb>=0.31",  # login(prompt=False); the oldest that was tried
    "mlflow-skinny>=3.17",  # the oldest that was tried
    "sqlalchemy",  # with alembic, for MLflow's database in a file; any version
    "alembic",  # any version
]
DOCS_REQUIREMENTS = [
    "mkdocs-material>=9.7,<10",  # the site; its successor Zensical reads the same mkdocs.yml
    "mkdocstrings[python]>=1",  # the oldest that was tried
    "ruff>=0.17,<0.18",  # breaks long signatures of the API into lines
]
TEST_REQUIREMENTS = [
    *DICOM_REQUIREMENTS,
    *HF_REQUIREMENTS,
    "hypothesis",  # any version
    "imageio",  # any version
    "ipykernel",  # the example notebooks; any version
    "mypy>=2.4,<2.5",  # other minor versions may find other errors, and a test runs it
    "nbclient>=0.10",  # coalesce_streams
    "pytest",  # any version
    "pytest-cov",  # any version
    "pytest-xdist",  # for -n: several processes
    "ruff>=0.17,<0.18",  # other minor versions may format otherwise, and a test compares
    "setuptools>=64",  # as in pyproject.toml
    "timm>=1.0.22",  # the small models test_*, and building on the meta device
]

# By use; the second group by the package that is needed, as before.
EXTRAS = {
    "medical": [*DICOM_REQUIREMENTS, *HF_REQUIREMENTS],  # DICOM; BiomedCLIP, MedSigLIP
    "remote-sensing": [],  # TIFF of any depth and number of bands needs nothing more
    "hub": HF_REQUIREMENTS,
    "export": ONNX_REQUIREMENTS,
    "report": DIAGRAM_REQUIREMENTS,
    "cluster": CLUSTER_REQUIREMENTS,
    "track": TRACK_REQUIREMENTS,
    "dicom": DICOM_REQUIREMENTS,
    "diagram": DIAGRAM_REQUIREMENTS,
    "hf": HF_REQUIREMENTS,
    "onnx": ONNX_REQUIREMENTS,
}
EXTRAS["all"] = sorted({one for extra in EXTRAS.values() for one in extra})

setup(
    name="quaternion-prompt",
    version=VERSION,
    description="Domain prompt learning with quaternion networks: a plug-in for Dassl and CoOp",
    long_description=Path("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    install_requires=REQUIREMENTS,
    extras_require={**EXTRAS, "docs": DOCS_REQUIREMENTS, "test": TEST_REQUIREMENTS},
    packages=[
        *find_namespace_packages(include=["dplq", "dplq.*"], exclude=["*__pycache__*"]),
        *(
            f"dplq.{package}"
            for folder in INSIDE
            for package in find_namespace_packages(include=[folder, f"{folder}._*"])
        ),
    ],
    package_dir={f"dplq.{folder}": folder for folder in INSIDE},
    package_data={
        "dplq": ["py.typed"],
        "dplq.configs": ["**/*.yaml"],
        "dplq.demo": ["*.yaml", "assets/*"],
        "dplq.models": ["*.yaml"],
        "dplq.report": ["templates/*"],
    },
    entry_points={"console_scripts": ["dplq = dplq.__main__:main"]},
)
