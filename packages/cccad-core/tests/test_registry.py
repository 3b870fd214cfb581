"""The registry imports only what is named, and a broken stranger harms nobody but those who ask for it."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from attrs import frozen
from cccad_core import registry as registry_module
from cccad_core.errors import BrokenPart, DuplicatePart, UnknownPart
from cccad_core.registry import KINDS, Registry

GOOD = """
    from attrs import frozen

    @frozen(kw_only=True)
    class ThriceSpec:
        '''Remember everything three times.'''
        num_latents: int = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution: one module and its entry points, as pip would leave them."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(distribution, module, source, points):
        (site / f"{module}.py").write_text(dedent(source))
        info = site / f"{distribution.replace('-', '_')}-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
        lines = [line for group, values in points.items() for line in (f"[{group}]", *values)]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install_thrice(install, distribution="cccad-thrice", module="thrice_plugin", name="thrice"):
    install(distribution, module, GOOD, {"cccad.compressor": [f"{name} = {module}:ThriceSpec"]})


def run_python(code):
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_registry_and_the_specs_takes_a_moment_and_no_torch():
    code = """
        import sys, time
        start = time.process_time()
        import cccad_core.registry, cccad_core.specs, cccad_core.spaces
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        print(time.process_time() - start)
    """
    assert min(float(run_python(code)) for _ in range(3)) < 0.4  # 0.06 on a quiet core; torch takes seconds


def test_listing_names_and_missing_a_name_import_no_part():
    code = """
        import sys
        from cccad_core.registry import lookup, names
        assert "window" in names("compressor")
        try:
            lookup("compressor", "wndow")
        except LookupError as error:
            print(error)
        assert "torch" not in sys.modules and "cccad_core.compressors" not in sys.modules
    """
    assert "Did you mean 'window'?" in run_python(code)


def test_an_installed_part_is_found_by_its_name_and_knows_its_name(install):
    install_thrice(install)
    registry = Registry()
    assert "thrice" in registry.names("compressor")
    assert "thrice_plugin" not in sys.modules
    cls = registry.lookup("compressor", "thrice")
    assert cls().num_latents == 3
    assert registry.name_of(cls) == ("compressor", "thrice")
    assert registry.distributions([("compressor", "thrice")]) == {"cccad-thrice": "1.2.3"}


def test_a_class_that_is_offered_through_a_second_module_knows_its_name(install):
    install_thrice(install, name="unused")
    shop = "from thrice_plugin import ThriceSpec as Best\n"
    install("cccad-shop", "thrice_shop", shop, {"cccad.source": ["best = thrice_shop:Best"]})
    registry = Registry()
    assert registry.name_of(registry.lookup("source", "best"), "source") == ("source", "best")


def test_an_unknown_name_is_answered_with_the_near_and_the_known_names(install):
    install_thrice(install)
    registry = Registry()
    with pytest.raises(UnknownPart) as caught:
        registry.lookup("compressor", "thrise")
    known = ", ".join(registry.names("compressor"))
    assert str(caught.value) == f"there is no compressor named 'thrise'. Did you mean 'thrice'? Known: {known}"


def test_an_unknown_kind_is_answered_with_the_kinds():
    with pytest.raises(UnknownPart, match=r"no kind of part named 'compresor'. Did you mean 'compressor'\?"):
        Registry().names("compresor")


def test_a_part_that_fails_to_import_is_an_error_only_when_it_is_asked_for(install):
    install_thrice(install)
    install(
        "cccad-bad", "bad_plugin", "import no_such_module_anywhere\n", {"cccad.compressor": ["bad = bad_plugin:Spec"]}
    )
    registry = Registry()
    assert registry.lookup("compressor", "thrice")().num_latents == 3
    with pytest.raises(BrokenPart) as caught:
        registry.lookup("compressor", "bad")
    assert str(caught.value) == (
        "the compressor 'bad' of cccad-bad 1.2.3 cannot be imported from bad_plugin:Spec: "
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    )


def test_a_listing_shows_which_parts_are_broken_and_goes_on(install):
    source = "raise RuntimeError('out\\nof order')\n"
    install("cccad-bad", "bad_plugin", source, {"cccad.executor": ["bad = bad_plugin:Spec"]})
    install("cccad-fine", "fine_plugin", GOOD, {"cccad.executor": ["fine = fine_plugin:ThriceSpec"]})
    found = {entry.name: entry for entry in Registry().entries("executor") if entry.distribution.startswith("cccad-")}
    assert found["fine"].error is None
    assert found["fine"].value == "fine_plugin:ThriceSpec"
    assert found["bad"].version == "1.2.3"
    message = str(found["bad"].error)
    assert "RuntimeError: out of order" in message
    assert "\n" not in message


def test_a_listing_without_a_check_imports_nothing(install):
    install_thrice(install)
    assert "thrice" in [entry.name for entry in Registry().entries("compressor", check=False)]
    assert "thrice_plugin" not in sys.modules


@pytest.mark.parametrize(
    "value", ["odd_plugin:absent", "odd_plugin:function", "odd_plugin:Plain", "odd_plugin", "odd plugin"]
)
def test_a_part_that_is_no_attrs_class_is_broken(install, value):
    source = "def function(): ...\nclass Plain: ...\n"
    install("cccad-odd", "odd_plugin", source, {"cccad.env": [f"odd = {value}"]})
    with pytest.raises(BrokenPart, match=r"the env 'odd' of cccad-odd 1\.2\.3"):
        Registry().lookup("env", "odd")


def test_one_name_from_two_distributions_is_an_error_that_names_both_when_used(install):
    install_thrice(install)
    install_thrice(install, distribution="cccad-copy", module="copy_plugin")
    registry = Registry()
    with pytest.raises(DuplicatePart) as caught:
        registry.lookup("compressor", "thrice")
    assert "cccad-thrice (thrice_plugin:ThriceSpec)" in str(caught.value)
    assert "cccad-copy (copy_plugin:ThriceSpec)" in str(caught.value)
    errors = [entry.error for entry in registry.entries("compressor", check=False) if entry.name == "thrice"]
    assert errors == [str(caught.value)] * 2


def test_a_class_registered_in_code_is_a_part_and_registering_it_again_is_harmless():
    registry = Registry()

    @frozen
    class Plan:
        num_writes: int = 1

    assert registry.register("curriculum", "plan")(Plan) is Plan
    registry.register("curriculum", "plan")(Plan)
    assert registry.lookup("curriculum", "plan") is Plan
    assert registry.name_of(Plan) == ("curriculum", "plan")
    assert registry.distributions([("curriculum", "plan")]) == {Plan.__module__: ""}


def test_a_class_in_code_does_not_silently_replace_an_installed_part(install):
    install_thrice(install)
    registry = Registry()
    registry.register("compressor", "thrice")(frozen(type("Other", (), {})))
    with pytest.raises(DuplicatePart, match="keep one of them"):
        registry.lookup("compressor", "thrice")


def test_what_cannot_be_a_spec_class_is_refused_when_it_is_registered():
    registry = Registry()
    with pytest.raises(BrokenPart, match="put @register above @frozen"):
        registry.register("env", "plain")(type("Plain", (), {}))
    with pytest.raises(BrokenPart, match="must not have a field 'kind'"):
        registry.register("env", "kind")(frozen(type("Kindly", (), {"__annotations__": {"kind": str}})))
    with pytest.raises(UnknownPart, match="Stranger is registered under no name as env"):
        registry.name_of(type("Stranger", (), {}), "env")


FILE = """
    from attrs import frozen
    from cccad_core.registry import register

    @register("compressor", "mine")
    @frozen(kw_only=True)
    class MineSpec:
        num_latents: int = 7
"""


@pytest.fixture
def fresh(monkeypatch):
    """Return an empty registry which plugin files register with, so that the shared one stays clean."""
    registry = Registry()
    monkeypatch.setattr(registry_module, "register", registry.register)
    return registry


def test_a_plugin_file_joins_by_its_path_and_may_come_in_twice(fresh, tmp_path):
    (tmp_path / "my_compressor.py").write_text(dedent(FILE))
    fresh.import_file("my_compressor.py", tmp_path)
    first = fresh.lookup("compressor", "mine")
    fresh.import_file(tmp_path / "." / "my_compressor.py")
    assert fresh.lookup("compressor", "mine") is first
    [(distribution, version)] = fresh.distributions([("compressor", "mine")]).items()
    assert distribution == "my_compressor.py"
    assert len(version) == 8


def test_two_plugin_files_of_one_name_do_not_meet(fresh, tmp_path):
    for folder, name in (("a", "mine"), ("b", "yours")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plugin.py").write_text(dedent(FILE).replace("mine", name))
        fresh.import_file("plugin.py", tmp_path / folder)
    assert {"mine", "yours"} <= set(fresh.names("compressor"))
    assert fresh.lookup("compressor", "mine") is not fresh.lookup("compressor", "yours")


def test_a_plugin_file_that_is_missing_or_is_no_python_says_so(fresh, tmp_path):
    with pytest.raises(BrokenPart, match=r"'absent.py' does not exist; it is looked for in '"):
        fresh.import_file("absent.py", tmp_path)
    Path(tmp_path / "notes.txt").touch()
    with pytest.raises(BrokenPart, match=r"'notes.txt' is no Python file"):
        fresh.import_file("notes.txt", tmp_path)


def test_a_plugin_file_that_fails_leaves_nothing_behind_and_can_be_mended(fresh, tmp_path):
    file = tmp_path / "half.py"
    file.write_text(dedent(FILE) + "1 / 0\n")
    with pytest.raises(BrokenPart, match=r"'half.py' failed to import: ZeroDivisionError: division by zero"):
        fresh.import_file("half.py", tmp_path)
    assert "mine" not in fresh.names("compressor")
    file.write_text(dedent(FILE))
    fresh.import_file("half.py", tmp_path)
    assert fresh.lookup("compressor", "mine")().num_latents == 7


def test_every_kind_can_be_listed():
    of_policies = {"memory", "compressor", "tokens", "encoder", "head", "trigger"}
    assert set(KINDS) == of_policies | {"objective", "curriculum", "env", "source", "executor"}
    assert "gated-query" in Registry().names("compressor")
    assert all(Registry().names(kind) == sorted(Registry().names(kind)) for kind in KINDS)
