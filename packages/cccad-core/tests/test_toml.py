"""What is written as TOML reads back as what was written."""

import math

import pytest
import tomli
from cccad_core.errors import SpecError
from cccad_core.specs.toml import digest, override, read, show, to_toml
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts | st.dates() | st.times()
)
documents = st.dictionaries(
    texts,
    st.recursive(
        scalars | st.datetimes(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@given(documents)
def test_written_toml_reads_back_as_what_was_written(data):
    assert tomli.loads(to_toml(data)) == data


def test_toml_puts_values_before_tables_and_escapes_what_it_must():
    data = {"table": {"b": 1, "list": [{"x": 1}, {"y": {"z": 'q"\\\n\x7f'}}]}, "top": [1, [2.5]], "odd key": True}
    text = to_toml(data)
    assert text.startswith('top = [1, [2.5]]\n"odd key" = true\n\n[table]\nb = 1\n\n[[table.list]]\nx = 1\n')
    assert 'z = "q\\"\\\\\\n\\u007f"' in text
    assert tomli.loads(text) == data
    assert math.isnan(tomli.loads(to_toml({"x": math.nan}))["x"])
    with pytest.raises(TypeError, match="TOML has no value for None"):
        to_toml({"x": None})


def test_a_digest_depends_on_the_values_and_not_on_the_order_of_the_keys():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) == "015abd7f"


def test_a_value_is_shown_as_in_toml_and_a_long_one_is_cut_short():
    assert [show(value) for value in (True, "3", 4.7, None, {"a": [1]})] == [
        "true",
        '"3"',
        "4.7",
        "nothing",
        "{ a = [1] }",
    ]
    assert len(show("x" * 500)) == 80
    assert show("x" * 500).endswith("x...")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfname = 'x'\r\n")
    assert read(tmp_path / "x.toml") == {"name": "x"}


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 5_000, "x = " + "9" * 5_000, ".".join("a" * 2_000) + " = 1", "x = " + "{a = " * 2_000]
)
def test_what_no_reader_of_toml_can_hold_is_refused_in_a_sentence(text, tmp_path):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(SpecError, match=r"x\.toml: the spec cannot be read: .*") as caught:
        read(tmp_path / "x.toml")
    assert len(str(caught.value)) < 300
    with pytest.raises(SpecError):
        override({}, text.replace(" ", ""))


def test_a_file_that_is_far_too_large_for_a_spec_is_not_read(tmp_path):
    with open(tmp_path / "x.toml", "wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(SpecError, match=r"at most 16,000,000 bytes, and this one 17,179,869,184"):
        read(tmp_path / "x.toml")
