#!/usr/bin/env python3
"""A fake of gcloud, sbatch, squeue, scancel, scontrol or srun, depending on its name: records calls and answers them.

$FAKE is a folder. Each call is appended to calls.jsonl as [name, argument …]. rules.json is a list of
{"match": part of the command line, "rc": 0, "out": "", "err": "", "once": false}; the first that matches answers.
Without a match the call succeeds silently, and `gcloud … ssh --command=…` runs the command in $FAKE/worker.
"""

import fcntl
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(os.environ["FAKE"])


def answer(line):
    """The rule that matches, or None; a rule with "once" is removed."""
    file = HERE / "rules.json"
    rules = json.loads(file.read_text()) if file.exists() else []
    for number, rule in enumerate(rules):
        if rule["match"] in line:
            if rule.get("once"):
                file.write_text(json.dumps(rules[:number] + rules[number + 1 :]))
            return rule
    return None


def main():
    call = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
    with open(HERE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(HERE / "calls.jsonl", "a") as file:
            file.write(json.dumps(call) + "\n")
        rule = answer(" ".join(call))
    if rule:
        sys.stdout.write(rule.get("out", ""))
        sys.stderr.write(rule.get("err", ""))
        return rule.get("rc", 0)
    command = next((a.removeprefix("--command=") for a in call if a.startswith("--command=")), None)
    if command is None:
        return 0
    (HERE / "worker").mkdir(exist_ok=True)
    return subprocess.run(["bash", "-c", command], cwd=HERE / "worker").returncode


if __name__ == "__main__":
    sys.exit(main())
