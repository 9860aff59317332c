"""A copy of the launch scripts, with fakes of the cloud's commands first on PATH."""

import json
import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ("gcloud", "sbatch", "squeue", "scancel", "scontrol", "srun")


class Cloud:
    """The scripts are in `tree`; records and rules of the fakes in `fake`."""

    def __init__(self, folder: pathlib.Path, *, absent=()):
        self.tree, self.fake, programs = folder / "tree", folder / "fake", folder / "bin"
        for made in (self.tree, self.fake, programs):
            made.mkdir()
        shutil.copytree(ROOT / "launch", self.tree / "launch")
        shutil.copytree(ROOT / "configs", self.tree / "configs", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "constraints.txt", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.tree / name)
        (self.tree / "cbalign").mkdir()
        for name in NAMES:
            if name not in absent:
                shutil.copy(ROOT / "tests/launch/fake.py", programs / name)
                (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "FAKE": str(self.fake),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TPU_PAUSE": "0.05",
            "SUPERVISE_PAUSE": "0.1",
            "SUPERVISE_TRIES": "3",
        }

    def rules(self, *rules):
        """Each (match, rc, out, err) or a dictionary as in fake.py."""
        (self.fake / "rules.json").write_text(
            json.dumps(
                [
                    rule if isinstance(rule, dict) else dict(zip(("match", "rc", "out", "err"), rule, strict=False))
                    for rule in rules
                ]
            )
        )

    def call(self, script, *arguments, **options):
        """Runs a script and returns when it exits."""
        return subprocess.run(
            ["bash", f"launch/{script}", *arguments],
            cwd=self.tree,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )

    def calls(self) -> list[list[str]]:
        """All calls of the fakes, in order."""
        file = self.fake / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def install(self, folder, script):
        """Writes a program `.venv/bin/cbalign` into `folder`."""
        program = folder / ".venv/bin/cbalign"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/usr/bin/env bash\n{script}\n")
        program.chmod(0o755)
