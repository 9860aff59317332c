"""Seconds of programs whose cycles and bytes are known by hand, and of small ones that the TPU compiler compiles."""

import importlib.util

import pytest

from cbalign.plan import hlo, work
from cbalign.plan.chips import parse_topology
from cbalign.plan.profile import moved_bytes, profile
from tests.plan.test_hlo import _LOOP

V4 = parse_topology("v4-8")


def cycles(count):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


def program(*lines):
    return hlo.parse(
        "HloModule m\n\nENTRY %main (p: f32[8]) -> f32[8] {\n" + "\n".join(f"  {x}" for x in lines) + "\n}\n"
    )


def test_cycles_of_a_loop_count_in_every_turn():
    found = profile(hlo.parse(_LOOP), V4)
    # 6 turns of 100 cycles; the counter's fusion and the comparison have no estimate: their bytes, in HBM, count.
    assert found.classes[work.TRANSPORT] == pytest.approx(6 * 100 / 1.05e9)
    assert 0 < found.unestimated < 0.01 and found.unknown_loops == 0
    assert sum(found.classes.values()) == pytest.approx(found.seconds)


BIG = 1228 * 10**6 // 4  # floats that HBM moves in a millisecond


def test_a_copy_hides_behind_other_work_and_waits_for_the_rest():
    found = profile(
        program(
            f"%p = f32[{BIG}]{{0}} parameter(0)",
            f"%s = (f32[{BIG}]{{0:S(1)}}, f32[{BIG}]{{0}}, u32[]) copy-start(%p)",
            '%a = f32[8]{0:S(1)} constant(0), metadata={op_name="x"}',
            f'%m = f32[8]{{0:S(1)}} sine(%a), metadata={{op_name="jit(f)/image_encoder/layer_0/mlp/x"}}, {cycles(420_000)}',
            f"ROOT %d = f32[{BIG}]{{0:S(1)}} copy-done(%s)",
        ),
        V4,
    )
    # A copy of one millisecond beside 0.4 milliseconds of an MLP.
    assert found.seconds == pytest.approx(1e-3, rel=1e-6)
    assert found.classes == pytest.approx({work.COPIES: 0.6e-3, work.MLPS: 0.4e-3})
    assert found.hidden[work.COPIES] == pytest.approx(0.4e-3) and found.bytes == 4 * BIG


def all_reduce(start, done, between):
    return program(
        "%p = f32[1000000]{0} parameter(0)",
        f"%r = f32[1000000]{{0}} {start}(%p), replica_groups={{{{0,1,2,3}}}}, to_apply=%sum",
        f'%m = f32[8]{{0:S(1)}} sine(%p), metadata={{op_name="jit(f)/mlp/x"}}, {cycles(between)}',
        *([f"ROOT %d = f32[1000000]{{0}} {done}(%r)"] if done else []),
    )


def test_a_collective_blocks_or_overlaps():
    # A ring over 4 chips sends 2 x 3/4 of 4 MB; a 2x2x1 mesh has two links of 50 GB/s out of a chip.
    sent = 6e6 / 100e9
    blocking = profile(all_reduce("all-reduce", "", 10**6), V4)
    assert blocking.classes[work.COLLECTIVES] == pytest.approx(sent)
    assert blocking.seconds == pytest.approx(sent + 10**6 / 1.05e9)
    beside = profile(all_reduce("all-reduce-start", "all-reduce-done", 10**6), V4)
    assert beside.seconds == pytest.approx(10**6 / 1.05e9) and beside.hidden[work.COLLECTIVES] == pytest.approx(sent)
    partly = profile(all_reduce("all-reduce-start", "all-reduce-done", 21_000), V4)
    assert partly.seconds == pytest.approx(sent) and partly.classes[work.COLLECTIVES] == pytest.approx(sent - 20e-6)


_FUSIONS = """HloModule m

%sliced (a: f32[100,8], i: s32[]) -> f32[1,8] {
  %a = f32[100,8]{1,0} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %z = s32[] constant(0)
  ROOT %o = f32[1,8]{1,0} dynamic-slice(%a, %i, %z), dynamic_slice_sizes={1,8}
}

%updated (a: f32[100,8], u: f32[1,8], i: s32[]) -> f32[100,8] {
  %a = f32[100,8]{1,0} parameter(0)
  %u = f32[1,8]{1,0} parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  %z = s32[] constant(0)
  ROOT %o = f32[100,8]{1,0} dynamic-update-slice(%a, %u, %i, %z)
}

ENTRY %main (p: f32[100,8], j: s32[]) -> f32[100,8] {
  %p = f32[100,8]{1,0} parameter(0)
  %j = s32[]{:S(6)} parameter(1)
  %s = f32[1,8]{1,0} fusion(%p, %j), kind=kLoop, calls=%sliced
  %n = f32[1,8]{1,0} negate(%s)
  ROOT %u = f32[100,8]{1,0} fusion(%p, %n, %j), kind=kLoop, calls=%updated
}
"""


def test_slices_move_no_more_than_themselves():
    module = hlo.parse(_FUSIONS)
    moved = {name: moved_bytes(module, "", module.computations[""][name]) for name in "snu"}
    assert moved == {"s": 2 * 32, "n": 2 * 32, "u": 2 * 32}


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("jit(s)/shard_map/jvp(AlignmentModel.encode_image)/image_encoder/layer_3/attention/query/dot_general", "PROJECTIONS"),
        ("jit(s)/transpose(jvp(vmap(AlignmentModel.fuse)))/fusion_encoder/layer_1/cross_attention/value/dot_general", "PROJECTIONS"),
        ("jit(s)/fusion_encoder.keys_and_values/layer_0.keys_and_values/cross_attention.keys_and_values/key/add", "PROJECTIONS"),
        ("jit(s)/jvp(PairModel.classify)/paired_encoder/layer_2_key/dot_general", "PROJECTIONS"),
        ("jit(s)/jvp(AlignmentModel.encode_image)/image_encoder/layer_0/attention/bqhd,bkhd->bhqk/dot_general", "ATTENTION"),
        ("jit(s)/vmap(AlignmentModel.fuse)/fusion_encoder/layer_1/cross_attention/exp", "ATTENTION"),
        ("jit(s)/vmap(M.fuse)/fusion_encoder/layer_1/cross_attention/Dropout_0/jit(_bernoulli)/jit(_uniform)/xor", "RANDOM"),
        ("jit(s)/jvp(AlignmentModel.encode_image)/image_encoder/layer_9/mlp/intermediate/dot_general", "MLPS"),
        ("jit(s)/jvp(AlignmentModel.encode_image)/image_encoder/layer_9/mlp_norm/rsqrt", "NORMS"),
        ("jit(s)/image_encoder/patch_embedding/dot_general", "EMBEDDINGS"),
        ("jit(s)/jvp(AlignmentModel.predict_tokens)/masked_token_head/bpd,vd->bpv/dot_general", "LOSSES"),
        ("jit(s)/jvp()/mul", "OTHER"),
    ],
)  # fmt: skip
def test_classes_by_scope(name, wanted):
    module = program(f'ROOT %x = f32[8]{{0}} fusion(%p), metadata={{op_name="{name}"}}')
    assert work.class_of(module, module.computations[""]["x"]) == getattr(work, wanted)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler")
@pytest.mark.parametrize("chip", ["v4-8", "v5e-4"])
def test_the_compilers_estimates_are_near_the_chips_limits(chip):
    import jax
    import jax.numpy as jnp

    from cbalign.plan.ahead import Compiler
    from cbalign.plan.cost import duration

    compiler = Compiler(parse_topology(chip))

    def timed(function, *shapes):
        inputs = tuple(jax.ShapeDtypeStruct(*shape) for shape in shapes)
        return duration(compiler.call(jax.jit(function), inputs, "a test")[0], compiler.topology)

    square = ((8192, 8192), jnp.bfloat16)
    product = timed(lambda a, b: a @ b, square, square)
    assert product.basis == "the compiler's estimate" and 0.8 < product.share_of_peak <= 1
    copied = timed(lambda a: a + 1, ((16384, 16384), jnp.float32))
    # 1 GiB is read and 1 GiB written.
    assert copied.memory_floor == pytest.approx(2**31 / compiler.topology.memory_bandwidth, rel=1e-6)
    assert 0.6 < copied.memory_floor / copied.seconds <= 1

    def seven(a, b):
        return jax.lax.scan(lambda c, _: (c @ b, None), a, None, length=7)[0]

    assert 6 < timed(seven, square, square).seconds / product.seconds < 8.5


_WRAPPED = """HloModule m

%starts (a: f32[1000000]) -> f32[1000000] {
  %a = f32[1000000]{0} parameter(0)
  ROOT %s = f32[1000000]{0} all-reduce-start(%a), replica_groups={{0,1,2,3}}, to_apply=%sum
}

%ends (b: f32[1000000]) -> f32[1000000] {
  %b = f32[1000000]{0} parameter(0)
  ROOT %d = f32[1000000]{0} all-reduce-done(%b)
}

ENTRY %main (p: f32[1000000]) -> f32[1000000] {
  %p = f32[1000000]{0} parameter(0)
  %start = f32[1000000]{0} fusion(%p), kind=kCustom, calls=%starts
  %m = f32[8]{0:S(1)} sine(%p), metadata={op_name="jit(f)/mlp/x"}, CYCLES
  %part = f32[1000000]{0} bitcast(%start)
  ROOT %done = f32[1000000]{0} fusion(%part), kind=kCustom, calls=%ends
}
"""


def test_an_asynchronous_collective_inside_a_fusion():
    found = profile(hlo.parse(_WRAPPED.replace("CYCLES", cycles(10**6))), V4)
    assert found.hidden[work.COLLECTIVES] == pytest.approx(6e6 / 100e9)
    assert found.seconds == pytest.approx(10**6 / 1.05e9)
