"""Every file of a run folder, spoilt in every way, under every command that reads it: one sentence, nothing lost."""

import json
import os
import re
import shutil

import pytest
import torch
from cccad_core.memory.compressed import Compressed
from cccad_core.spaces import Spaces
from cccad_core.specs import load
from cccad_data.histories.owner import OWNER
from cccad_train import cli
from cccad_train.experiment import ExperimentSpec
from cccad_train.files import TEXT, RunFileError, table
from cccad_train.fit.checkpoints import fitting, load_latest
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Stage
from cccad_train.run.stages.fitting import assemble
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TINY = """
name = "tiny"
blind = false
[env]
kind = "darkroom"
size = 3
horizon = 4
[data.source]
kind = "noisy-oracle"
num_envs = 2
env_steps = 80
[policy]
width = 8

[policy.memory]
kind = "compressed"
window = 10
num_layers = 1
num_heads = 1
compressor = { kind = "gated-query", num_latents = 2, num_heads = 1 }
[train]
num_updates = 3
num_writes = 2
targets_per_update = 60
checkpoint_every_updates = 1
log_every_updates = 1
[evaluate]
num_episodes = 4
num_replicas = 2
"""

NOBODY: tuple[str, ...] = ()  # it is written for people
READERS = {  # of every file of a run folder
    "spec.toml": ("evaluate", "report", "compare", "memory-report", "resume"),
    "meta.json": ("report", "compare", "resume"),
    "stages.json": ("evaluate", "resume", "neighbour"),
    "content.json": ("evaluate", "resume"),
    "metrics.jsonl": ("evaluate", "report", "compare", "resume", "neighbour"),
    "evaluation/results.json": ("report", "compare", "evaluate-alone"),
    "evaluation/data_card.json": ("report", "compare"),
    "evaluation/memory.json": NOBODY,
    "policy/spec.toml": ("evaluate", "memory-report"),
    "policy/model.safetensors": ("evaluate", "memory-report"),
    "policy/README.md": NOBODY,
    "checkpoints/train-cad/update_2/state.pt": ("resume-from-2",),
    "checkpoints/train-cad/update_3/state.pt": ("resume", "neighbour"),
    "checkpoints/train-cad/latest": NOBODY,
    "checkpoints/train-cad/best": NOBODY,
    "tensorboard/train-cad/events": NOBODY,
    "report.html": NOBODY,
    "memory.html": NOBODY,
}
COMMANDS = {  # what a command is asked; RUN is the folder, OUT the one that it lies in
    "evaluate": ("evaluate", "RUN", "--device", "cpu"),
    "evaluate-alone": ("evaluate", "RUN", "--device", "cpu"),  # without the histories
    "report": ("report", "RUN"),
    "compare": ("report", "RUN", "OUT/second"),
    "memory-report": ("memory-report", "RUN", "--lives", "2", "--device", "cpu"),
    "resume": ("run", "RUN/spec.toml", "--resume", "--only", "train", "--device", "cpu"),
    "resume-from-2": ("run", "RUN/spec.toml", "--resume", "--only", "train", "--device", "cpu"),  # no other is there
    "neighbour": ("run", "OUT/tiny.toml", "--out", "OUT", "--only", "train", "--set", "evaluate.seed=1"),
}
NOTED = {"meta.json", "spec.toml"}  # a run that goes on is noted in these
READ_NO_RUN = {"list", "describe", "data", "check", "convert"}
WITHOUT_FORMAT = {"meta.json", "spec.toml", "stages.json", "content.json", "evaluation/data_card.json"}
MAY_BE_MISSING = {"meta.json", "stages.json", "content.json", "metrics.jsonl", "evaluation/data_card.json"}


@pytest.fixture(scope="module")
def out(tmp_path_factory, cccad_run, cccad):
    """An `out` folder with the spec, the data, and a finished run in `run` and `second`; not to be changed."""
    out = tmp_path_factory.mktemp("tiny")
    (out / "tiny.toml").write_text(TINY)
    ended = cccad_run(out / "tiny.toml", "--out", out)
    assert ended.code == 0, ended.err
    [run] = out.glob("tiny-*")
    ended = cccad("memory-report", run, "--lives", "2", "--device", "cpu")
    assert ended.code == 0, ended.err
    run.rename(out / "run")
    shutil.copytree(out / "run", out / "second")
    path = out / "second" / "evaluation" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 1}))
    return out


def fresh(out, place, command):
    """Return a copy of *out* that a test may change, made ready for *command*."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(out, place)
    if command == "evaluate-alone":
        shutil.rmtree(place / "data")
    if command in ("resume", "resume-from-2", "neighbour"):
        shutil.rmtree(place / "second")  # which has done the same
    if command == "resume-from-2":
        shutil.rmtree(place / "run" / "checkpoints" / "train-cad" / "update_3")
    if command.startswith("resume"):  # the stage is still to be finished
        record = json.loads((place / "run" / "stages.json").read_text())
        (place / "run" / "stages.json").write_text(json.dumps({"collect": record["collect"]}))
    return place


def empty(path):
    path.write_bytes(b"")


def missing(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path):
    path.write_bytes(bytes(range(7, 256, 3)) * 40)


def not_utf8(path):
    path.write_bytes(path.read_bytes() + b"\n\xff\xfe\xfa\n")


def another_type(path):
    path.write_bytes(b"[[1, 2], 3]\n" * 2)


def not_a_number(path):
    text = path.read_bytes()
    path.write_bytes(re.sub(rb"(?<=[ \[])-?[0-9]+(\.[0-9]+)?(?=[,\]\n])", b"NaN", text, count=3) + b'\n{"x": NaN}\n')


def newer(path):
    path.write_bytes(re.sub(rb"(cccad-[a-z]+)/1", rb"\1/7", path.read_bytes()).replace(b"{", b'{"format": "x/2", ', 1))


def endless_link(path):
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to("nothing-here")


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def deep(path):
    path.write_bytes(b"a = " * (path.suffix == ".toml") + b"[" * 200_000)


def huge(path):
    with path.open("r+b") as file:
        file.truncate(1 << 40)


ALWAYS = (missing, empty, cut, another_type)
FAULTS = (
    *ALWAYS,
    *(garbage, not_utf8, not_a_number, newer, endless_link, link_to_nothing, folder, pipe, deep, huge),
)


def is_right_anyway(file, fault, command):
    """Say whether *command* may do its work all the same."""
    if command == "neighbour" or file.endswith("update_3/state.pt"):
        return True  # it does without what it cannot read, and says so
    if file.endswith("state.pt") and fault in (not_utf8, not_a_number):
        return True  # something was added to the file's end, and what was there is whole
    if file == "spec.toml" and command in ("report", "compare"):
        return True  # it is shown as it is
    if file == "metrics.jsonl" and fault in (empty, cut, not_a_number, deep):
        return True  # a last line that is cut short, or numbers that got lost
    if fault in (newer, not_a_number) and file in WITHOUT_FORMAT:
        return True  # there is nothing in them of that kind
    return fault is missing and file in MAY_BE_MISSING


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != OWNER)
    return {path: path.read_bytes() for path in files if path.stat().st_size < 1 << 30}


def test_the_table_has_every_file_of_a_run_folder_and_every_command(out):
    files = {str(path.relative_to(out / "run")) for path in (out / "run").rglob("*") if path.is_file()}
    assert {re.sub(r"events.*", "events", name) for name in files} == set(READERS)
    assert {words[0] for words in COMMANDS.values()} | READ_NO_RUN == set(cli.main.commands)
    assert {command for readers in READERS.values() for command in readers} == set(COMMANDS)


@pytest.mark.parametrize(
    ("file", "command"), [(file, command) for file, readers in READERS.items() for command in readers]
)
def test_a_spoilt_file_is_one_sentence_and_nothing_is_lost(file, command, out, tmp_path, cccad):
    wrong = []
    for fault in FAULTS if command == READERS[file][0] else ALWAYS:  # what reads a file is the same everywhere
        place = fresh(out, tmp_path / "out", command)
        fault(place / "run" / file)
        before = contents(place)
        words = [word.replace("RUN", f"{place}/run").replace("OUT", str(place)) for word in COMMANDS[command]]
        ended = cccad(*words)
        where = [fault.__name__, ended.code, ended.err]
        if ended.code == 0 and not is_right_anyway(file, fault, command):
            wrong.append(["was taken", *where])
        if ended.code not in (0, 1, 2) or "Traceback" in ended.err or ended.err.count("\n") > 6:
            wrong.append(["is no sentence", *where])
        if ended.code != 0 and file.partition("/")[0] not in ended.err and fault is not missing:
            wrong.append(["names no file", *where])
        if list(place.rglob("*.partial")):
            wrong.append(["left something half-written", *where])
        after = contents(place)
        changed = [path for path, text in before.items() if after.get(path) != text and path.name not in NOTED]
        if ended.code != 0 and changed:
            wrong.append(["lost", *map(str, changed), *where])
    assert not wrong, "\n".join(map(repr, wrong))


def leaves(value, path=()):
    """Yield the path of every leaf of nested tables and lists, of long lists those of the first and the last item."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if not isinstance(value, list) or key in (0, len(value) - 1):
            yield (*path, key)
            yield from leaves(item, (*path, key))


def changed(value, path, leaf):
    """Return a copy of *value* with another *leaf* at *path*."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = leaf if len(path) == 1 else changed(copy[path[0]], path[1:], leaf)
    return copy


STRANGE: st.SearchStrategy[object] = st.sampled_from(
    [None, True, "", "x", "\x1b[2J", "\ud800", -1, 0, 10**400, 1e308, 5e-324, -0.5, [], {}, [[1]], {"x": {}}, 10**9]
)
JSON_FILES = ["evaluation/results.json", "evaluation/data_card.json", "meta.json", "metrics.jsonl"]


@pytest.mark.parametrize("file", JSON_FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_leaf_of_another_type_is_refused_by_name_or_harmless(file, data, out, tmp_path, cccad):
    whole = (out / "run" / file).read_text()
    value = [json.loads(line) for line in whole.splitlines()] if file.endswith("l") else json.loads(whole)
    path = data.draw(st.sampled_from(list(leaves(value))))
    value = changed(value, path, data.draw(STRANGE))
    place = tmp_path / "run"
    if not place.exists():
        shutil.copytree(out / "run", place)
    for name in JSON_FILES:
        shutil.copyfile(out / "run" / name, place / name)
    text = "".join(json.dumps(row) + "\n" for row in value) if file.endswith("l") else json.dumps(value)
    (place / file).write_text(text)
    ended = cccad("report", place)
    assert ended.code in (0, 2), ended.err
    if ended.code == 0:
        page = (place / "report.html").read_text()
        assert not re.search(r"(?<![a-z])(nan|inf)(?![a-z])", re.sub(r"<[^>]*>", " ", page))
        assert "\x1b" not in page
    else:
        assert ended.err.count("\n") == 1
        assert str(place / file) in ended.err or ended.err.startswith("agent ")


RECORDS = {"stages.json": table(others=TEXT), "content.json": table(others=TEXT)}


@pytest.mark.parametrize("file", RECORDS)
@given(leaf=STRANGE)
def test_a_record_with_a_leaf_of_another_type_is_refused_by_name(file, leaf, out, tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / file
    path.write_text(json.dumps({**json.loads((out / "run" / file).read_text()), "collect": leaf}))
    folder_ = RunFolder(path=path.parent)
    read = folder_.stages if file == "stages.json" else folder_.content
    if leaf in ("", "x"):
        assert read()["collect"] == leaf
    else:
        with pytest.raises(RunFileError, match=rf"{file}: 'collect' must be text"):
            read()


STRANGE_STATE: list[object] = [
    None,
    True,
    "x",
    10**9,
    -1,
    float("nan"),
    [],
    {},
    {0: {}},
    torch.zeros(2),
    torch.full((8,), torch.nan),
]


@pytest.mark.parametrize("strange", STRANGE_STATE, ids=lambda strange: str(strange).replace("\n", ""))
def test_a_checkpoint_with_another_value_in_any_place_is_passed_over(strange, out, tmp_path):
    [stage] = (out / "run" / "checkpoints").iterdir()
    state = torch.load(stage / "update_3" / "state.pt", weights_only=True)
    spec = load(out / "run" / "spec.toml", ExperimentSpec)
    policy = spec.policy.build(Spaces.from_dict(spec.env.build().spaces), seed=0)
    assemble(Stage(kind="train", agent="cad"), policy, spec.agents()["cad"], {})  # which says what is trained
    assert isinstance(policy.memory, Compressed)
    fit = fitting(policy.state_dict(), spec.train.optimizer.build(policy, policy.memory.compressor), most=3)
    newest = load_latest(stage, fit)
    assert newest is not None
    assert newest["progress"]["update"] == 3
    shutil.copytree(stage / "update_2", tmp_path / "update_2")
    (tmp_path / "update_3").mkdir()
    weights = next(iter(state["policy"]))
    moments = [("optimizer", "state", 0), ("optimizer", "state", 0, "exp_avg"), ("optimizer", "param_groups", 0)]
    for path in [("inputs",), ("policy",), ("policy", weights), ("progress",), ("progress", "update"),
                 ("progress", "best"), ("optimizer",), ("optimizer", "state"), *moments]:  # fmt: skip
        if path == ("inputs",) and strange == "x":
            continue
        torch.save(changed(state, path, strange), tmp_path / "update_3" / "state.pt")
        messages: list[str] = []
        newest = load_latest(tmp_path, fit, messages.append)
        assert newest is not None, path
        assert newest["progress"]["update"] == 2, path
        assert re.search(r"update_3/state\.pt: '\S+' must be .*; this checkpoint is passed over", messages[0])


def test_of_a_damaged_checkpoint_the_run_says_so_and_ends_with_the_same_bits(out, tmp_path, cccad):
    place = fresh(out, tmp_path / "out", "resume")
    newest = place / "run" / "checkpoints" / "train-cad" / "update_3" / "state.pt"
    newest.write_bytes(b"")
    ended = cccad("run", place / "run" / "spec.toml", "--resume", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert f"warning: {newest}: it is damaged: File is not a zip file; this checkpoint is passed over" in ended.err
    assert "train-cad: going on from update 2 of 3" in ended.out
    name = "policy/model.safetensors"
    assert (place / "run" / name).read_bytes() == (out / "run" / name).read_bytes()


def test_a_neighbour_that_cannot_be_read_harms_nobody(out, tmp_path, cccad):
    place = fresh(out, tmp_path / "out", "neighbour")
    shutil.rmtree(place / "run")
    for number, text in enumerate(['{"x', "", "[]", '{"train-cad": 3}', "\udcff"]):
        (place / f"other{number}").mkdir()
        (place / f"other{number}" / "stages.json").write_bytes(text.encode(errors="surrogateescape"))
    ended = cccad("run", place / "tiny.toml", "--out", place, "--device", "cpu")
    assert ended.code == 0, ended.err
