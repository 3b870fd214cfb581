"""Task families of strangers: whatever is wrong with one is a sentence with its name."""

import pytest
from cccad_data import DataError, UnknownFamilyError, verify
from cccad_data.cli import main
from cccad_data.families.registered import build_family
from cccad_data.families.toys import Corridor, CorridorSpec

FAMILY = """
from cccad_data.families.toys import Corridor, CorridorSpec as Spec

class Strange(Corridor):
    def {method}(self, *args, **kwargs):
        {act}

class CorridorSpec(Spec):
    def build(self):
        return Strange(self)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution on the path, with a module that offers the family `corridor`."""

    def put(name, code):
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cccad.env]\ncorridor = {name}_families:CorridorSpec\n")
        (site / f"{name}_families.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))

    return put


def test_a_family_that_two_distributions_offer_is_refused_by_every_command(install, dataset, capsys):
    install("first", "from cccad_data.families.toys import CorridorSpec")
    install("second", "from cccad_data.families.toys import CorridorSpec")
    for command in ("verify", "info"):
        assert main([command, str(dataset)]) == 2
        said = capsys.readouterr().err
        assert "the task family 'corridor' is offered more than once, by " in said
        assert "second (second_families:CorridorSpec) and " in said
        assert "first (first_families:CorridorSpec); keep one of them" in said


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("licensed", "raise RuntimeError('licence server\\nnot reached')", "RuntimeError: licence server not reached"),
        ("leaving", "import sys; sys.exit('bye')", "SystemExit: bye"),
        ("wrong", "CorridorSpec = 1 +", "SyntaxError: "),
        ("lacking", "x = 1", "AttributeError: "),
        ("missing", "import no_such_module", "ModuleNotFoundError: "),
    ],
)
def test_a_family_that_cannot_be_imported_is_a_sentence_with_its_name(install, name, code, words):
    install(name, code)
    with pytest.raises(UnknownFamilyError) as error:
        build_family({"kind": "corridor"})
    start = f"the task family 'corridor' of {name} is installed but cannot be imported: {words}"
    assert str(error.value).startswith(start)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "act", ["raise RuntimeError('no\\nlicence')", "raise OSError('no licence')", "import sys; sys.exit('no licence')"]
)
@pytest.mark.parametrize("method", ["__init__", "task", "split", "replay", "next_observations", "optimal_return"])
def test_a_family_that_fails_while_it_is_used_is_a_sentence_with_its_name(install, dataset, capsys, method, act):
    name = f"strange{method.strip('_')}{len(act)}"
    install(name, FAMILY.format(method=method, act=act))
    for command in ("verify", "info"):
        code = main([command, str(dataset)])
        said = "".join(capsys.readouterr())
        assert code in {0, 1, 2}
        assert "Traceback" not in said
        if (command, method) in {("verify", "replay"), ("verify", "split"), ("info", "task"), ("info", "__init__")}:
            assert "the task family 'corridor' failed with " in said
            assert "licence" in said


def test_a_split_that_the_installed_family_refuses_is_a_fault(dataset):
    class Picky(Corridor):
        def split(self, **_settings):
            raise TypeError("split() got an unexpected argument")

    faults = verify(dataset, Picky(CorridorSpec()))
    assert [fault.message for fault in faults] == [
        "the split in the header cannot be drawn: split() got an unexpected argument"
    ]


def test_fields_that_a_family_does_not_take_are_named(install):
    install("plain", "from cccad_data.families.toys import CorridorSpec")
    with pytest.raises(DataError, match=r"the installed task family 'corridor' does not take {'size': -3}: "):
        build_family({"kind": "corridor", "size": -3})
