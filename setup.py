"""Packaging: one top-level name, `dplq`; the rooms beside it are installed inside it.

Top-level packages called `datasets` or `trainers` in site-packages would overwrite other people's
(Hugging Face's, a host tree's), so they are mapped to `dplq.datasets`, `dplq.trainers` and
`dplq.configs`.
"""

from setuptools import find_namespace_packages, setup

ROOMS = ("configs", "datasets", "trainers")
REQUIREMENTS = [
    "torch>=2.4",  # weights_only loading with allow-listed classes
    "torchvision>=0.19",  # the one that goes with torch 2.4
    "open_clip_torch>=2.26.1",  # towers are batch-first from here on
    "timm>=1.0",  # forward_features and pretrained_cfg of all encoders in today's form
    "safetensors>=0.4",  # metadata in safe_open
    "yacs>=0.1.8",  # None as a config value
    "numpy>=1.23",
    "Pillow>=9.1",  # Image.Resampling
    "PyYAML>=6.0",
    "scikit-learn>=1.1",  # zero_division in f1_score for all averages
    "tabulate>=0.9",
    "tensorboard>=2.11",  # protobuf 4
    "tqdm>=4.64",
]

setup(
    name="quaternion-prompt",
    version="0.1.0",
    description="Domain prompt learning with quaternion networks: a plug-in for Dassl and CoOp",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    install_requires=REQUIREMENTS,
    extras_require={"test": ["pytest>=7.4", "ruff>=0.6", "setuptools>=64"]},
    packages=[
        *find_namespace_packages(include=["dplq", "dplq.*"], exclude=["*__pycache__*"]),
        *(f"dplq.{room}" for room in ROOMS),
    ],
    package_dir={f"dplq.{room}": room for room in ROOMS},
    package_data={"dplq.configs": ["**/*.yaml"]},
)
