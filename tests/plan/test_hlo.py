"""Collectives and loops read from compiled programs whose bytes and turns are known by hand."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from cbalign.plan.collectives import collectives
from cbalign.plan.hlo import parse

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
    assert collectives(parse(_TPU)) == [
        {"kind": "all-gather", "devices": 4, "bytes": 64 * 8 * 2, "count": 1, "asynchronous": True},
        {"kind": "all-reduce", "devices": 2, "bytes": (10 + 6) * 4, "count": 1, "asynchronous": False},
    ]


# How the TPU compiler writes a loop: no trip count, the bound in the condition, counter and step in the tuple and body.
_LOOP = """HloModule m, is_scheduled=true

FileNames
1 "/x/cbalign/losses/transport.py"
2 "/x/cbalign/training/step.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=19 end_line=19 column=8 end_column=28}
2 {file_name_id=2 function_name_id=2 line=16 end_line=16 column=22 end_column=77}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=1}

%stepped (q: s32[]) -> s32[] {
  %q = s32[]{:T(128)} parameter(0)
  %two = s32[]{:T(128)} constant(2)
  ROOT %next = s32[]{:T(128)} add(%q, %two)
}

%body (t: (s32[], f32[8], s32[])) -> (s32[], f32[8], s32[]) {
  %t = (s32[]{:T(128)}, f32[8]{0:T(256)}, s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %x = f32[8]{0:T(256)} get-tuple-element(%t), index=1
  %e = s32[]{:T(128)} get-tuple-element(%t), index=2
  %n = s32[]{:T(128)} fusion(%i), kind=kLoop, calls=%stepped
  %y = f32[8]{0:T(256)} sine(%x), metadata={op_name="jit(f)/while/body/sin" stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %r = (s32[]{:T(128)}, f32[8]{0:T(256)}, s32[]{:T(128)}) tuple(%n, %y, %e)
}

%condition (u: (s32[], f32[8], s32[])) -> pred[] {
  %u = (s32[]{:T(128)}, f32[8]{0:T(256)}, s32[]{:T(128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%u), index=0
  %b = s32[]{:T(128)} get-tuple-element(%u), index=2
  ROOT %less = pred[]{:T(512)} compare(%j, %b), direction=LT
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(256)} parameter(0)
  %zero = s32[]{:T(128)} constant(1)
  %start = s32[]{:T(128)} copy(%zero)
  %end = s32[]{:T(128)} constant(12)
  %first = (s32[]{:T(128)}, f32[8]{0:T(256)}, s32[]{:T(128)}) tuple(%start, %p, %end)
  %loop = (s32[]{:T(128)}, f32[8]{0:T(256)}, s32[]{:T(128)}) while(%first), condition=%condition, body=%body
  ROOT %out = f32[8]{0:T(256)} get-tuple-element(%loop), index=1
}
"""


def test_turns_of_a_loop_without_a_trip_count():
    module = parse(_LOOP)
    # 1, 3, 5, 7, 9, 11
    assert module.executions["body"] == 6 and module.executions["condition"] == 7 and module.executions["stepped"] == 6
    assert module.unknown_loops == [] and set(module.scheduled) == {"", "body", "condition"}
    assert module.computations["body"]["y"].cycles == 100


def test_a_loop_whose_bound_is_not_known_counts_once_and_is_named():
    module = parse(_LOOP.replace("constant(12)", "parameter(1)"))
    assert module.executions["body"] == 1 and module.unknown_loops == ["loop"]


def test_where_an_instruction_was_called_from():
    module = parse(_LOOP)
    files = module.files[module.computations["body"]["y"].frame]
    assert files.split() == ["/x/cbalign/losses/transport.py", "/x/cbalign/training/step.py"]


def test_arrays_on_the_chip():
    module = parse(_TPU.replace("%d = bf16[64,8]{1,0}", "%d = bf16[64,8]{1,0:T(8,128)(2,1)S(1)}"))
    assert [x.on_chip for x in module.computations[""]["d"].arrays] == [True]
    assert [(x.element, x.dimensions, x.bytes, x.on_chip) for x in module.computations[""]["t"].arrays] == [
        ("f32", (10,), 40, False),
        ("f32", (2, 3), 24, False),
    ]
