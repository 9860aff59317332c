"""Overrides and stored configs of any content: accepted, and then kept, or refused with one line."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbalign.config import base_config, check_config, from_json, load_config, to_json
from cbalign.config_fields import FIELDS
from cbalign.errors import UserError
from cbalign.runs.workdir import task_class
from tests.fire.fuzzing import check_refusal, examples, mutated_json

pytestmark = pytest.mark.slow

_NAMES = ("emoji", "paper/pretrain", "paper/retrieval_coco")
_LEAVES = st.one_of(
    st.integers(),
    st.sampled_from((0, -1, 2**31, 2**64, 10**400)),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.complex_numbers(max_magnitude=9),
)
_LITERALS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
    ),
    max_leaves=6,
).map(repr)
_VALUES = st.one_of(
    _LITERALS,
    st.text(max_size=12),
    st.sampled_from(
        ("", "true", "1e999", "9" * 5000, "(" * 300, "-" * 3000 + "1", "[" * 150 + "]" * 150, "{[]: 1}", "1,2", "a+b*c")
    ),
)
_FIELD = st.one_of(st.sampled_from(sorted(FIELDS)), st.text(max_size=8), st.sampled_from(("data", "data.", "_locked")))
_OVERRIDES = st.lists(st.one_of(st.tuples(_FIELD, _VALUES).map("=".join), st.text(max_size=8)), min_size=1, max_size=3)


@examples(60)
@given(st.sampled_from(_NAMES), _OVERRIDES)
@example("emoji", ["codebook.beta=" + "9" * 5000])
@example("emoji", ["\n"])
@example("emoji", ["x" * 5000 + "=1"])
def test_overrides(name, overrides):
    try:
        config = load_config(name, overrides)
        task_class(config).check(config, devices=1)
    except UserError as error:
        check_refusal(error)
        return
    # repr, since NaN is unlike itself.
    assert repr(from_json(to_json(config)).to_dict()) == repr(config.to_dict())


@examples(60)
@given(mutated_json(json.loads(to_json(base_config()))))
def test_stored_configs(text):
    try:
        config = from_json(text)
        check_config(config)
    except UserError as error:
        check_refusal(error)
        return
    assert repr(from_json(to_json(config)).to_dict()) == repr(config.to_dict())
