"""Collectives read from real compiled programs whose bytes are known by hand."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from cbalign.plan.collectives import collectives

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/plan/programs.py")],
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


# A device's own part is 8 x 3 x 4 = 96 bytes; gathered it is four times that.
@pytest.mark.parametrize(
    "program, kind, size, count",
    [
        ("summed", "all-reduce", 96, 1),
        ("gathered", "all-gather", 384, 1),
        ("scattered", "reduce-scatter", 96, 1),
        ("passed", "collective-permute", 96, 1),
        ("looped", "all-reduce", 96, 7),
    ],
)
def test_kinds_bytes_and_turns(found, program, kind, size, count):
    told = [x for x in found[program] if x["kind"] == kind]
    assert len(told) == 1 and told[0]["bytes"] == size and told[0]["count"] == count
    if kind != "collective-permute":
        assert told[0]["devices"] == 4


# How the TPU compiler writes them: asynchronous, operands and results side by side, groups as a product.
_TPU = """HloModule m, entry_computation_layout={()->f32[]}

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %r = f32[]{:T(256)} add(%a, %b)
}

ENTRY %main (p: bf16[16,8]) -> f32[] {
  %s = (bf16[16,8]{1,0:T(8,128)(2,1)}, bf16[64,8]{1,0:T(8,128)(2,1)}) all-gather-start(%p), replica_groups=[1,4]<=[4], dimensions={0}
  %d = bf16[64,8]{1,0} all-gather-done(%s)
  %t = (f32[10]{0}, f32[2,3]{1,0}) all-reduce(%x, %y), replica_groups={{0,1},{2,3}}, to_apply=%sum
  ROOT %z = f32[] constant(0)
}
"""


def test_asynchronous_and_joined_ones_as_a_tpu_has_them():
    assert collectives(_TPU) == [
        {"kind": "all-gather", "devices": 4, "bytes": 64 * 8 * 2, "count": 1},
        {"kind": "all-reduce", "devices": 2, "bytes": (10 + 6) * 4, "count": 1},
    ]
