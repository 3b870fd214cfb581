"""Whatever lies in a dataset folder: every command ends soon, in a sentence that names the file, with no traceback."""

import json
import os
import resource
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from cccad_data import Histories, HistoryFileError, InlineSpec, NoisyOracleSpec, RandomSpec, collect
from cccad_data import affordable as affordable_module
from cccad_data.cli import commands, main
from cccad_data.families.toys import CorridorSpec
from cccad_data.interchange import READERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SHARD = Path("shards/unit-0000.h5")
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("corridor_installed")]

# How each command is given the path of a dataset; a command that is not here fails a test below.
COMMANDS = {
    "info": [["info", "{data}"], ["info", "{data}", "--markdown", "{out}"]],
    "verify": [["verify", "{data}"]],
    "merge": [["merge", "{out}", "{data}"], ["merge", "{out}", "{data}", "--compression", "none"]],
    "export": [["export", "{data}", "{out}", "--to", "npz"]],
    "import": [["import", "{file}", "{out}", "--from", form] for form in READERS if form != "minari"],
}


def test_every_command_is_held_against_damaged_files():
    assert set(COMMANDS) == set(commands.commands)


def missing(file):
    file.unlink()


def empty(file):
    file.write_bytes(b"")


def cut_in_half(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def garbage(file):
    file.write_bytes(np.random.default_rng(0).bytes(5000))


def not_utf8(file):
    file.write_bytes('{"format": "é"}'.encode("latin-1"))


def a_link_to_itself(file):
    file.unlink()
    file.symlink_to(file.name)


def a_link_to_nothing(file):
    file.unlink()
    file.symlink_to("nothing")


def a_folder(file):
    file.unlink()
    file.mkdir()


def a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def a_tera_of_nothing(file):
    with file.open("r+b") as opened:
        opened.truncate(0)
        opened.truncate(1 << 40)


def changed(**changes):
    """Change the JSON of a manifest, or of a shard's header."""

    def change(file):
        rewrite(file, lambda content: {**content, **changes})

    change.__name__ = "-".join(f"{key}={str(value)[:20]}" for key, value in changes.items())
    return change


def rewrite(file, change):
    if file.suffix == ".json":
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
        return
    with h5py.File(file, "r+") as opened:
        content = change(json.loads(bytes(opened["header"][...])))
        del opened["header"]
        opened.create_dataset("header", data=np.frombuffer(json.dumps(content).encode(), np.uint8))


def edited(name, edit):
    """Change an open shard."""

    def change(file):
        with h5py.File(file, "r+") as opened:
            edit(opened)

    change.__name__ = name
    return change


def replaced(name, place, make):
    """Put what *make* makes of (shard, old array, its folder) in the place of an array."""

    def edit(shard):
        old = shard[place][...]
        del shard[place]
        make(shard, old, Path(shard.filename).parent)

    return edited(name, edit)


REWARDS = "tasks/00000/rewards"


def _external_link(shard, old, folder):
    with h5py.File(folder.parent.parent / "secret.h5", "w") as other:
        other["rewards"] = old
    shard[REWARDS] = h5py.ExternalLink(str(folder.parent.parent / "secret.h5"), "rewards")


def _external_storage(shard, old, folder):
    (folder.parent.parent / "secret.bin").write_bytes(old.tobytes())
    place = [(str(folder.parent.parent / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    shard.create_dataset(REWARDS, shape=old.shape, dtype=old.dtype, external=place)


def _virtual(shard, old, folder):
    with h5py.File(folder.parent.parent / "secret.h5", "w") as other:
        other["rewards"] = old
    layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
    layout[:] = h5py.VirtualSource(str(folder.parent.parent / "secret.h5"), "rewards", shape=old.shape)
    shard.create_virtual_dataset(REWARDS, layout)


def _soft_link(shard, old, _):
    shard["elsewhere"] = old
    shard[REWARDS] = h5py.SoftLink("/elsewhere")


def _huge(shard, old, _):
    shard.create_dataset(REWARDS, shape=(10**9,), dtype=old.dtype, chunks=(1 << 20,), compression="gzip")


def _huge_twice_packed(shard, _old, __):
    shard.create_dataset(REWARDS, data=np.zeros(10**6, np.float32), compression="gzip", scaleoffset=2)


def _as_group(shard, *_):
    shard.create_group(REWARDS)


def _of_type(dtype):
    return lambda shard, old, _: shard.create_dataset(REWARDS, data=old.astype(dtype))


def _with(value):
    return lambda shard, old, _: shard.create_dataset(REWARDS, data=np.where(np.arange(len(old)) == 5, value, old))


ACTION = {"kind": "discrete", "n": 3}
BOTH = [missing, empty, cut_in_half, garbage, not_utf8, a_link_to_itself, a_link_to_nothing, a_folder, a_pipe]
BOTH += [
    a_tera_of_nothing,
    changed(seed=float("nan")),
    changed(tasks=[]),
    changed(held_out_task_ids=[[1]]),
    changed(split={"seed": False}),
    changed(split={"held_out_frac": None}),
    changed(split={"held_out_frac": "x"}),
    changed(spaces={"observation": {"kind": "multi-discrete", "sizes": [1e308]}, "action": ACTION}),
    changed(spaces={"observation": {"kind": "multi-discrete", "sizes": [10**30]}, "action": ACTION}),
    changed(spaces={"observation": {"kind": "box", "shape": [10**10], "low": 0, "high": 1}, "action": 5}),
]
MANIFEST_ONLY = [
    changed(format="cccad-history/9"),
    changed(format=None),
    changed(units=[{"shard": "../secret.h5", "done": True}]),
    changed(units=[{"shard": "/etc/passwd", "done": True}]),
    changed(units=[{"shard": str(SHARD), "done": True}] * 2),
    changed(units=[]),
]
SHARD_ONLY = [
    edited("newer", lambda shard: shard.attrs.__setitem__("format", "cccad-history/9")),
    edited("a_number_as_format", lambda shard: shard.attrs.__setitem__("format", np.arange(3))),
    edited("no_tasks", lambda shard: shard.__delitem__("tasks")),
    edited("no_array", lambda shard: shard.__delitem__(REWARDS)),
    replaced("external_link", REWARDS, _external_link),
    replaced("external_storage", REWARDS, _external_storage),
    replaced("virtual", REWARDS, _virtual),
    replaced("soft_link", REWARDS, _soft_link),
    replaced("a_billion_rows", REWARDS, _huge),
    replaced("strange_filters", REWARDS, _huge_twice_packed),
    replaced("a_group", REWARDS, _as_group),
    replaced("texts", REWARDS, _of_type("S8")),
    replaced("complex", REWARDS, _of_type(complex)),
    replaced("nan", REWARDS, _with(np.nan)),
    replaced("two_dimensions", REWARDS, lambda shard, old, _: shard.create_dataset(REWARDS, data=old[:, None])),
    replaced("a_scalar", REWARDS, lambda shard, *_: shard.create_dataset(REWARDS, data=1.0)),
    replaced(
        "more_features",
        "tasks/00000/observations",
        lambda shard, old, _: shard.create_dataset("tasks/00000/observations", data=np.repeat(old, 2, axis=1)),
    ),
]
CASES = [("manifest.json", damage) for damage in (*BOTH, *MANIFEST_ONLY)]
CASES += [(str(SHARD), damage) for damage in (*BOTH, *SHARD_ONLY)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two small corridors in one shard."""
    out = tmp_path_factory.mktemp("whole") / "set"
    source = NoisyOracleSpec(num_envs=2, env_steps=40).build()
    return collect(CorridorSpec().build(), source, InlineSpec().build(), out=out, split=SPLIT, seed=4, max_tasks=2)


SPLIT = {"seed": 0, "held_out_frac": 0.2}


def played(command, places, capsys):
    """Run a command; return its exit status and all it said."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    code = main([part.format(**places) for part in command])
    said = capsys.readouterr()
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB
    assert "Traceback" not in said.out + said.err
    return code, said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("file", "damage"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_damaged_file_ends_every_command_in_one_sentence_that_names_it(file, damage, name, whole, tmp_path, capsys):
    if name == "import":
        pytest.importorskip("minari", reason="without it no folder is opened")
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    damage(folder / file)
    data = [folder] if file == "manifest.json" or damage is a_folder else [folder, folder / file]
    for command in COMMANDS[name]:
        for path in data:
            places = {"data": path, "file": folder / file, "out": tmp_path / "out"}
            code, said = played(command, places, capsys)
            lines = (said.err or said.out).strip().splitlines()
            assert code in {1, 2}
            assert any(str(folder / file) in line or str(folder) in line for line in lines)
            assert said.err.count("\n") <= 1
            assert said.err.startswith("cccad-data: ") or (name == "verify" and code == 1)
            assert not (tmp_path / "out").exists()
            assert {path.name for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".owner"))} == set()


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just([[1]]),
    st.just({}),
    st.just({"kind": 5}),
)


def leaves(content, path=()):
    """Yield the path of every part of plain data."""
    if path:
        yield path
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield from leaves(content[key], (*path, key))


def put(content, path, value):
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("file", ["manifest.json", str(SHARD)])
def test_a_wrong_type_at_any_leaf_never_ends_in_a_traceback(file, whole, tmp_path, capsys):
    good = json.loads((whole / "manifest.json").read_text())
    good = good if file == "manifest.json" else {key: value for key, value in good.items() if key != "units"}
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    content = (folder / file).read_bytes()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(path=st.sampled_from(list(leaves(good))), value=LEAVES)
    def check(path, value):
        (folder / file).write_bytes(content)
        rewrite(folder / file, lambda _: put(good, path, value))
        target = folder if file == "manifest.json" else folder / file
        for name in ("info", "verify"):
            code, said = played([name, "{data}"], {"data": target}, capsys)
            assert code in {0, 1, 2}
            assert code < 2 or said.err.count("\n") == 1

    check()


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1), length=st.integers(0, 8), seed=st.integers(0, 2**32 - 1))
def test_bytes_that_are_cut_or_changed_anywhere_are_refused_or_harmless(whole, tmp_path_factory, place, length, seed):
    content = bytearray((whole / SHARD).read_bytes())
    begin = int(place * len(content))
    content[begin : begin + length] = np.random.default_rng(seed).bytes(length)
    content = content if length else content[:begin]
    file = tmp_path_factory.mktemp("changed") / "one.h5"
    file.write_bytes(content)
    right = Histories.open(whole)
    refusal, read = "", []
    try:
        read = Histories.open(file)
    except HistoryFileError as error:
        refusal = str(error)
    assert bool(refusal) == (str(file) in refusal)
    assert "\n" not in refusal
    for task, other in zip(read, right, strict=not refusal):
        assert all((array == other.arrays()[name]).all() for name, array in task.arrays().items())


def test_a_newer_format_is_named_as_newer(whole, tmp_path, capsys):
    for file in ("manifest.json", str(SHARD)):
        shutil.copytree(whole, tmp_path / "set", dirs_exist_ok=True)
        change = MANIFEST_ONLY[0] if file == "manifest.json" else SHARD_ONLY[0]
        change(tmp_path / "set" / file)
        assert main(["info", str(tmp_path / "set")]) == 2
        said = capsys.readouterr().err
        assert "the format is 'cccad-history/9'; this version of cccad-data reads 'cccad-history/1' only;" in said
        assert "a newer one wrote it" in said


def test_a_family_of_a_header_that_is_huge_costs_neither_time_nor_memory(tmp_path, capsys):
    from cccad_envs import DarkroomSpec

    source = RandomSpec(num_envs=1, env_steps=40).build()
    family = DarkroomSpec(size=3).build()
    folder = collect(family, source, InlineSpec().build(), out=tmp_path / "set", split=SPLIT, seed=0)
    for size in (2_000, 100_000):
        rewrite(folder / SHARD, lambda content, size=size: {**content, "env": {**content["env"], "size": size}})
        for name in ("info", "verify"):
            code, said = played([name, "{data}"], {"data": folder / SHARD}, capsys)
            assert code == (name == "verify")
            words = "the spaces in the header are not those" if name == "verify" else "installed with other spaces"
            assert words in said.out


def test_what_a_header_says_reaches_the_terminal_without_control_characters(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "set")
    evil = {"kind": "\x1b[2Jcorridor\x07", "note": "\x9b31m"}
    for file in ("manifest.json", str(SHARD)):
        changed(env=evil)(tmp_path / "set" / file)
    for examples in COMMANDS.values():
        for command in examples:
            places = {"data": tmp_path / "set", "file": tmp_path / "set" / SHARD, "out": tmp_path / "out"}
            main([part.format(**places) for part in command])
            said = "".join(capsys.readouterr())
            assert all(letter.isprintable() or letter == "\n" for letter in said)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            (tmp_path / "out").unlink(missing_ok=True)


def test_what_does_not_fit_into_memory_stays_on_the_disk_or_is_refused_with_an_estimate(whole, monkeypatch):
    assert isinstance(Histories.open(whole).tasks[0].rewards, np.ndarray)
    monkeypatch.setattr(affordable_module, "memory_bytes", lambda: 1000)
    monkeypatch.setattr("cccad_data.histories.dataset.memory_bytes", lambda: 1000)
    lazy = Histories.open(whole)
    assert not isinstance(lazy.tasks[0].rewards, np.ndarray)
    with pytest.raises(HistoryFileError, match=r"need about 0 GB of memory; there are 0; open them with lazy=True"):
        Histories.open(whole, lazy=False)
