"""A spec is read strictly, all its mistakes are told at once, and it comes back equal from its own plain data."""

from textwrap import dedent
from typing import Annotated, Any, ClassVar, Literal

import pytest
import tomli
from attrs import Factory, field, frozen, validators
from cccad_core import registry as registry_module
from cccad_core.errors import SpecError
from cccad_core.registry import Registry
from cccad_core.specs import Kind, describe, load, parts, structure, to_toml, unstructure
from cccad_core.specs.structure import with_moved
from hypothesis import given
from hypothesis import strategies as st

REGISTRY = Registry()


@REGISTRY.register("compressor", "spec-test-gated")
@frozen(kw_only=True)
class GatedSpec:
    """Replace the latents through a gate.

    The gate starts almost open.
    """

    num_latents: int = field(default=8, validator=validators.ge(1), metadata={"help": "how many tokens remember"})
    gate_bias: float = -1.0
    inner: Annotated[Any, Kind("compressor")] = None


@REGISTRY.register("compressor", "spec-test-window")
@frozen(kw_only=True)
class WindowSpec:
    """Remember nothing."""


@frozen(kw_only=True)
class StageSpec:
    at_update: int = field(validator=validators.ge(0))
    max_writes: int | None = None


@frozen(kw_only=True)
class PolicySpec:
    width: int = 64
    activation: Literal["gelu", "relu"] = "gelu"
    compressor: Annotated[Any, Kind("compressor")] = field(factory=lambda: GatedSpec(num_latents=4))
    stages: tuple[StageSpec, ...] = ()


@frozen(kw_only=True)
class ExperimentSpec:
    name: str = field(validator=validators.min_len(1))
    seed: int = field(default=0)
    learning_rate: float = field(default=3e-4, validator=validators.gt(0))
    is_dense: bool = True
    held_out_frac: float = field(default=0.1, validator=validators.and_(validators.gt(0), validators.lt(1)))
    sizes: tuple[int, ...] = field(default=(9, 9), validator=validators.deep_iterable(validators.ge(2)))
    policy: PolicySpec = field(factory=PolicySpec)
    controls: dict[str, PolicySpec] = field(factory=dict)
    teacher: Annotated[Any, Kind("compressor")] | None = None
    parts: tuple[Annotated[Any, Kind("compressor")], ...] = ()
    imports: tuple[str, ...] = ()

    @seed.validator
    def _fits_the_width(self, _, value):
        if value > self.policy.width * 1000:
            raise ValueError(f"'seed' must be at most 1000 times the width: {value}")


BARE = 'expected a table with the \'kind\' of compressor, got "x"; write { kind = "x" }'
GELO = 'expected one of "gelu", "relu", got "gelo" (did you mean \'gelu\'?)'
KNOWN = ", ".join(REGISTRY.names("compressor"))


def problems_of(data, cls=ExperimentSpec):
    with pytest.raises(SpecError) as caught:
        structure(data, cls, source="experiments/x.toml", registry=REGISTRY)
    return caught.value.problems


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
finite = st.floats(-1e30, 1e30)
gated = st.builds(GatedSpec, num_latents=st.integers(1, 99), gate_bias=finite)
compressors = st.builds(WindowSpec) | gated | st.builds(GatedSpec, inner=gated)
stages = st.builds(StageSpec, at_update=st.integers(0, 10**9), max_writes=st.none() | st.integers(0, 9))
policies = st.builds(
    PolicySpec,
    width=st.integers(10, 10**4),
    activation=st.sampled_from(["gelu", "relu"]),
    compressor=compressors,
    stages=st.lists(stages, max_size=3).map(tuple),
)
experiments = st.builds(
    ExperimentSpec,
    name=texts.filter(bool),
    seed=st.integers(-(2**62), 9),
    learning_rate=st.floats(1e-300, 1e30),
    is_dense=st.booleans(),
    held_out_frac=st.floats(0.01, 0.99),
    sizes=st.lists(st.integers(2, 99), max_size=3).map(tuple),
    policy=policies,
    controls=st.dictionaries(texts, policies, max_size=2),
    teacher=st.none() | compressors,
    parts=st.lists(compressors, max_size=3).map(tuple),
)


@given(experiments)
def test_a_spec_comes_back_equal_from_its_plain_data_and_from_its_toml(spec):
    plain = unstructure(spec, REGISTRY)
    assert structure(plain, ExperimentSpec, registry=REGISTRY) == spec
    assert structure(tomli.loads(to_toml(plain)), ExperimentSpec, registry=REGISTRY) == spec


def test_a_part_is_written_with_its_kind_and_what_is_none_is_left_out():
    plain: dict[str, Any] = unstructure(ExperimentSpec(name="x", parts=(WindowSpec(),)), REGISTRY)
    assert plain["policy"]["compressor"] == {"kind": "spec-test-gated", "num_latents": 4, "gate_bias": -1.0}
    assert plain["parts"] == [{"kind": "spec-test-window"}]
    assert "teacher" not in plain
    assert "kind" not in plain["policy"]


def test_the_parts_of_a_spec_are_found_wherever_they_are():
    spec = ExperimentSpec(name="x", controls={"ad": PolicySpec(compressor=GatedSpec(inner=WindowSpec()))})
    assert parts(spec, REGISTRY) == {("compressor", "spec-test-gated"), ("compressor", "spec-test-window")}
    assert parts(StageSpec(at_update=1), REGISTRY) == set()


def test_a_none_that_is_no_default_cannot_be_written():
    @frozen(kw_only=True)
    class Odd:
        limit: int | None = 5

    with pytest.raises(SpecError, match="TOML has no None, and None is not the default in Odd @ limit"):
        unstructure(Odd(limit=None), REGISTRY)


def test_all_mistakes_are_told_at_once_in_the_style_of_the_design():
    data = {
        "seed": 4.7,
        "name": "x",
        "policy": {"compressor": {"kind": "spec-test-gatd"}, "stages": [{"at_update": 0}, {"at_update": True}]},
        "controls": {"ad": {"compressor": {"kind": "spec-test-gated", "num_latens": 3}}, "a b": {"width": "3"}},
    }
    unknown = f"there is no compressor named 'spec-test-gatd'. Did you mean 'spec-test-gated'? Known: {KNOWN}"
    with pytest.raises(SpecError) as caught:
        structure(data, ExperimentSpec, source="experiments/x.toml", registry=REGISTRY)
    assert str(caught.value).splitlines() == [
        "experiments/x.toml:",
        "  expected int, got 4.7 @ seed",
        f"  {unknown} @ policy.compressor.kind",
        "  expected int, got true @ policy.stages[1].at_update",
        "  extra field 'num_latens' (did you mean 'num_latents'?) @ controls.ad.compressor",
        '  expected int, got "3" @ controls."a b".width',
    ]


def test_a_single_mistake_is_told_in_one_line():
    with pytest.raises(SpecError) as caught:
        structure({"name": "x", "held_out_frac": 1.4}, ExperimentSpec, source="experiments/x.toml", registry=REGISTRY)
    assert str(caught.value) == "experiments/x.toml: 'held_out_frac' must be > 0 and < 1: 1.4"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seed": True}, ("seed", "expected int, got true")),
        ({"seed": "3"}, ("seed", 'expected int, got "3"')),
        ({"is_dense": 1}, ("is_dense", "expected bool, got 1")),
        ({"is_dense": "false"}, ("is_dense", 'expected bool, got "false"')),
        ({"learning_rate": True}, ("learning_rate", "expected float, got true")),
        ({"learning_rate": 10**400}, ("learning_rate", f"expected float, got 1{'0' * 76}...")),
        ({"name": 3}, ("name", "expected str, got 3")),
        ({"name": None}, ("name", "expected str, got nothing")),
        ({"sizes": "99"}, ("sizes", 'expected list of int, got "99"')),
        ({"sizes": [9, 9.0]}, ("sizes[1]", "expected int, got 9.0")),
        ({"sizes": [9, 1]}, ("", "'sizes' must be >= 2 for each item: [9, 1]")),
        ({"name": ""}, ("", "'name' must be at least 1 long: \"\"")),
        ({"learning_rate": 0}, ("", "'learning_rate' must be > 0: 0.0")),
        ({"policy": 3}, ("policy", "expected a table, got 3")),
        ({"controls": [1]}, ("controls", "expected table of table (PolicySpec), got [1]")),
        ({"polcy": {}}, ("", "extra field 'polcy' (did you mean 'policy'?)")),
        ({"zzzzz": {}}, ("", "extra field 'zzzzz'")),
        ({"policy": {"activation": "gelo"}}, ("policy.activation", GELO)),
        ({"teacher": "x"}, ("teacher", BARE)),
        ({"teacher": {"kind": 3}}, ("teacher.kind", "expected str, got 3")),
        ({"teacher": {}}, ("teacher", f"required field 'kind' missing; known: {KNOWN}")),
        ({"parts": [{"kind": "spec-test-window", "x": 1}]}, ("parts[0]", "extra field 'x'")),
        ({"policy": {"stages": [{}]}}, ("policy.stages[0]", "required field 'at_update' missing")),
        ({"seed": 10**9}, ("", "'seed' must be at most 1000 times the width: 1000000000")),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_path(change, problem):
    assert problems_of({"name": "x", **change}) == [problem]


def test_every_validator_that_fails_is_told_beside_the_wrong_types_and_the_missing_fields():
    found = problems_of({"learning_rate": -1.0, "held_out_frac": 0.0, "is_dense": 3, "policy": {"width": "3"}})
    assert found == [
        ("", "required field 'name' missing"),
        ("is_dense", "expected bool, got 3"),
        ("policy.width", 'expected int, got "3"'),
        ("", "'learning_rate' must be > 0: -1.0"),
        ("", "'held_out_frac' must be > 0 and < 1: 0.0"),
    ]


def test_a_whole_number_is_a_float_and_a_none_is_only_for_what_may_be_none():
    spec = structure({"name": "x", "learning_rate": 1}, ExperimentSpec, registry=REGISTRY)
    assert type(spec.learning_rate) is float
    assert structure({"at_update": 1, "max_writes": None}, StageSpec, registry=REGISTRY).max_writes is None
    assert problems_of({"at_update": None}, StageSpec) == [("at_update", "expected int, got nothing")]


def test_a_check_over_several_fields_is_told_where_their_table_is():
    @frozen(kw_only=True)
    class Range:
        low: int
        high: int

        def __attrs_post_init__(self):
            if self.low >= self.high:
                raise ValueError(f"'low' must be below 'high': {self.low} and {self.high}")

    @frozen(kw_only=True)
    class Outer:
        range: Range

    assert problems_of({"range": {"low": 3, "high": 2}}, Outer) == [("range", "'low' must be below 'high': 3 and 2")]


def test_unions_and_pairs_take_exactly_what_they_say():
    @frozen(kw_only=True)
    class Limits:
        limit: int | Literal["unlimited"] = "unlimited"
        pair: tuple[int, str] = (1, "a")

    assert structure({"limit": 3, "pair": [2, "b"]}, Limits, registry=REGISTRY) == Limits(limit=3, pair=(2, "b"))
    assert problems_of({"limit": "all", "pair": [2]}, Limits) == [
        ("limit", 'expected int or "unlimited", got "all"'),
        ("pair", "expected list of 2 (int, str), got [2]"),
    ]


def test_a_field_type_that_no_toml_can_fill_is_the_error_of_its_author():
    @frozen
    class Odd:
        items: set[int]

    with pytest.raises(TypeError, match="a spec cannot have a field of type set"):
        structure({"items": []}, Odd, registry=REGISTRY)


@pytest.fixture
def write(tmp_path):
    def write(text, name="x.toml"):
        (tmp_path / name).write_text(dedent(text))
        return tmp_path / name

    return write


def load_error(path, overrides=()):
    with pytest.raises(SpecError) as caught:
        load(path, ExperimentSpec, overrides, registry=REGISTRY)
    return str(caught.value)


def test_a_file_is_loaded_with_its_overrides(write):
    path = write("name = 'x'\n[policy]\nwidth = 32\n")
    changes = ["policy.width=48", "policy.compressor = {kind = 'spec-test-window'}", 'controls."a b".width=5', "seed=3"]
    spec = load(path, ExperimentSpec, changes, registry=REGISTRY)
    assert (spec.name, spec.seed, spec.policy.width) == ("x", 3, 48)
    assert spec.policy.compressor == WindowSpec()
    assert spec.controls["a b"].width == 5


def test_wrong_overrides_are_told_with_the_other_mistakes(write):
    path = write("name = 'x'\nseed = 4.7\n")
    changes = ["policy.name=relu", "name.first=3", "seed", "a b=1", "=3"]
    assert load_error(path, changes).splitlines()[1:] == [
        "  the override policy.name=relu sets no TOML value; a string needs its quotes: 'policy.name=\"relu\"'",
        "  the override name.first=3 needs a table at 'name', which is \"x\"",
        '  an override must look like a.b=VALUE: "seed"',
        '  an override must look like a.b=VALUE: "a b=1"',
        '  an override must look like a.b=VALUE: "=3"',
        "  expected int, got 4.7 @ seed",
    ]
    assert "sets no TOML value" in load_error(path, ["seed=1\nname='y'"])


def test_a_file_that_is_no_toml_is_told_in_one_line_with_its_line(write, tmp_path):
    path = write("name = 'x'\n\nseed = oops\n")
    assert load_error(path) == f"{path}:3: Invalid value (column 8)"
    path = write("name = [1,")
    assert load_error(path).startswith(f"{path}")
    assert "\n" not in load_error(path)
    assert load_error(tmp_path / "absent.toml") == (
        f"{tmp_path / 'absent.toml'}: the spec cannot be read: No such file or directory"
    )
    path.write_bytes(b"name = '\xff'")
    assert "must be UTF-8 text" in load_error(path)


PLUGIN = """
    from attrs import frozen
    from cccad_core.registry import register

    @register("compressor", "spec-test-file")
    @frozen(kw_only=True)
    class FileSpec:
        depth: int = 1
"""


def test_a_plugin_file_named_by_the_spec_is_there_when_the_spec_is_read(write, monkeypatch):
    registry = Registry()
    monkeypatch.setattr(registry_module, "register", registry.register)
    write(PLUGIN, "my_compressor.py")
    path = write("""
        name = "x"
        imports = ["my_compressor.py"]
        [policy.compressor]
        kind = "spec-test-file"
        depth = 2
    """)
    spec = load(path, ExperimentSpec, registry=registry)
    assert spec.policy.compressor.depth == 2
    assert spec.imports == ("my_compressor.py",)
    assert structure(unstructure(spec, registry), ExperimentSpec, registry=registry) == spec
    moved = path.parent / "elsewhere"
    moved.mkdir()
    (moved / "x.toml").write_text(path.read_text())
    assert load(moved / "x.toml", ExperimentSpec, relative_to=path.parent, registry=registry) == spec


def test_plugin_files_that_cannot_come_in_are_told_with_the_other_mistakes(write):
    path = write("name = 3\nimports = ['absent.py']\n")
    lines = load_error(path).splitlines()
    assert lines[1] == f"  the plugin file 'absent.py' does not exist; it is looked for in '{path.parent}' @ imports[0]"
    assert lines[2] == "  expected str, got 3 @ name"
    assert load_error(write("name = 'x'\nimports = 'a.py'\n")).endswith('expected list of str, got "a.py" @ imports')


def test_a_spec_class_without_imports_may_still_have_them_in_its_file(write):
    assert load(write("imports = []\nat_update = 1\n"), StageSpec, registry=REGISTRY) == StageSpec(at_update=1)


def test_a_description_tells_each_field_with_its_default_and_what_is_asked_of_it():
    assert describe(GatedSpec, REGISTRY).splitlines() == [
        "Replace the latents through a gate.",
        "",
        "The gate starts almost open.",
        "",
        "  num_latents: int = 8  (>= 1)",
        "      # how many tokens remember",
        "  gate_bias: float = -1.0",
        "  inner: a table with the 'kind' of compressor, may be left out",
    ]
    text = describe(ExperimentSpec, REGISTRY)
    assert "  name: str, required  (at least 1 long)" in text
    assert "  held_out_frac: float = 0.1  (> 0 and < 1)" in text
    assert "  sizes: list of int = [9, 9]  (>= 2 for each item)" in text
    assert "  policy: table (PolicySpec) = { width = 64," in text
    assert "      stages: list of table (StageSpec) = []\n          at_update: int, required  (>= 0)\n" in text
    assert describe(WindowSpec, REGISTRY) == "Remember nothing."


@frozen(kw_only=True)
class MovedSpec:
    """Had `capacity` and `size` of its own once."""

    MOVED: ClassVar[dict[str, str]] = {"capacity": "memory", "size": "part.size"}

    memory: int = 3
    part: Annotated[Any, Kind("compressor")] = Factory(WindowSpec)


@frozen(kw_only=True)
class HouseSpec:
    """Holds specs whose fields moved."""

    rooms: dict[str, MovedSpec] = Factory(dict)
    attic: MovedSpec | None = None


def test_what_an_earlier_version_wrote_is_read_with_every_field_where_it_is_now():
    attic = {"part": {"kind": "window", "x": 1}, "size": 2}
    old: dict[str, Any] = {"rooms": {"a": {"capacity": 5, "size": 7}}, "attic": attic}
    moved: dict[str, Any] = with_moved(old, HouseSpec, REGISTRY)
    assert moved["rooms"]["a"]["memory"] == 5
    assert (moved["rooms"]["a"]["part"]["kind"], moved["rooms"]["a"]["part"]["size"]) == ("spec-test-window", 7)
    assert moved["attic"]["part"] == {"kind": "window", "x": 1, "size": 2}
    assert old["rooms"]["a"] == {"capacity": 5, "size": 7}
