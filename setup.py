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
    "open_clip_torch>=3.1",  # the first with the worldwide text towers (eos_id)
    "timm>=1.0.22",  # building on the meta device; the tests' small models test_*
    "safetensors>=0.4.4",  # older ones write a file without tensors wrongly
    "yacs>=0.1.8",  # None as a config value
    "filelock>=3.32",  # forked children do not hold, or give back, the lock; fallback_to_soft
    "msgspec>=0.18",  # the oldest that was tried
    "jinja2>=3.1.2",  # what pandas asks for
    "matplotlib>=3.7",  # legends outside the axes
    "numpy>=1.23.5",  # the oldest that was tried
    "pandas>=2.2",  # the oldest that was tried
    "Pillow>=10.3",  # 16-bit PNG opens as such; rotated TIFFs from 10.1
    "PyYAML>=6.0.1",  # the oldest that was tried
    "rich>=12",  # console.Group from 11; the oldest that was tried
    "scikit-learn>=1.2",  # the oldest that was tried
    "scipy>=1.9.3",  # the oldest that was tried
    "tabulate>=0.9",  # what pandas asks for
    "tensorboard>=2.12",  # older ones cannot be imported beside protobuf 4
    "tifffile>=2023.2.3",  # the oldest that was tried
    "tqdm>=4.64",  # the oldest that was tried
]
DIAGRAM_REQUIREMENTS = ["scikit-posthocs>=0.9"]  # keyword arguments of the diagram
HF_REQUIREMENTS = ["transformers>=4.57.1"]  # text towers and tokenizers; the oldest that was tried
ONNX_REQUIREMENTS = [
    "onnx>=1.23",  # the oldest that was tried
    "onnxscript>=0.7",  # the oldest that was tried
]
DICOM_REQUIREMENTS = ["pydicom>=3"]  # the first that writes the files of the tests
CLUSTER_REQUIREMENTS = [
    "ray>=2.40",  # the oldest that was tried
    "submitit>=1.4.6",  # the oldest that was tried
]
TRACK_REQUIREMENTS = [
    "wandb>=0.31",  # login(prompt=False); the oldest that was tried
    "mlflow-skinny>=3.17",  # the oldest that was tried
    "sqlalchemy>=2.0.30",  # with alembic, for MLflow's database; the oldest that was tried
    "alembic>=1.13",  # the oldest that was tried
]
DOCS_REQUIREMENTS = [
    "mkdocs-material>=9.7,<10",  # the site; its successor Zensical reads the same mkdocs.yml
    "mkdocstrings[python]>=1.0.7",  # the first with pymdown-extensions 13; Python 3.11
    "ruff>=0.17,<0.18",  # breaks long signatures of the API into lines
]
TEST_REQUIREMENTS = [
    *DICOM_REQUIREMENTS,
    *HF_REQUIREMENTS,
    "hypothesis>=6.100",  # the oldest that was tried
    "imageio>=2.31",  # the oldest that was tried
    "ipykernel>=6.29",  # the example notebooks; the oldest that was tried
    "mypy>=2.4,<2.5",  # other minor versions may find other errors, and a test runs it
    "nbclient>=0.10",  # coalesce_streams
    "pytest>=8",  # the oldest that was tried
    "pytest-cov>=5",  # the oldest that was tried
    "pytest-xdist>=3.5",  # for -n: several processes; the oldest that was tried
    "ruff>=0.17,<0.18",  # other minor versions may format otherwise, and a test compares
    "setuptools>=64",  # as in pyproject.toml
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
