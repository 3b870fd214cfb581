"""What stands in a code block of a document is run: here, or where `RUN_ELSEWHERE` says, or `NOT_RUN` says why not.

A block or a line that is new fails until it runs. Commands run in this process, in a folder that holds what they name.
"""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

import h5py
import numpy as np
import pytest
import tomli
from attrs import frozen
from cccad_core.registry import KINDS, REGISTRY, register
from cccad_core.specs import load
from cccad_data import Histories
from cccad_data.cli import main as cccad_data
from cccad_train.cli import main as cccad
from cccad_train.cli import run as cccad_run
from cccad_train.experiment import ExperimentSpec
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("packages/*/README.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
LANGUAGES = ("python", "toml", "sh", "bash")

NOT_CODE = {  # (document, language, first words): what it is
    ("README.md", "", "latents          window"): "a drawing",
    ("docs/history-format.md", "text", "histories/"): "a drawing of a folder",
    ("docs/history-format.md", "text", "attribute format"): "a drawing of a file",
    ("docs/log.md", "markdown", "## YYYY-MM-DD"): "a form to be filled in",
    ("packages/cccad-data/README.md", "text", "histories/"): "a drawing of a folder and its files",
}
RUN_ELSEWHERE = {  # document: the test that runs all of its Python and TOML, also where the package is alone
    "packages/cccad-core/README.md": "packages/cccad-core/tests/test_core_readme.py",
    "packages/cccad-envs/README.md": "packages/cccad-envs/tests/test_envs_readme.py",
    "docs/bring-your-own-environment.md": "tests/test_bring_your_own_environment.py",
    "docs/bring-your-own-data.md": "packages/cccad-data/tests/test_data_own.py",
}
NOT_RUN = {  # the beginning of a line: why it is not run as it stands, and what is done instead
    "make ": "verbs of the house make an environment and take minutes: `make --dry-run` knows each",
    "pip install ": "needs an environment of its own: tests/test_installation.py has one for each of them (slow)",
    "cccad describe compressor conv-gru": "needs what the line before installs: tests/test_installation.py (slow)",
    "sbatch ": "there is no SLURM: what each job would run is run twice, with one process",
    "srun ": "there are no nodes: what each process would run is run once; two nodes are in the tests of cccad-train",
    "torchrun ": "the same",
    "accelerate launch ": "the same",
    "OMP_NUM_THREADS=1 python -m timeit": "a measurement: it is run once and not fifteen times",
    "cccad memory-report ": "plays with 4 lives and not with 128",
    "cccad-run experiments/": "trains with 2 updates",
}
TINY = [
    *("--set", "train.num_updates=2", "--set", "pretrain.num_updates=2", "--set", "controls.ad.train.num_updates=2"),
    *("--set", "evaluate.num_episodes=2"),
]
SMALL = """
[split]
max_train_tasks = 6
[data.source]
kind = "noisy-oracle"
num_envs = 2
env_steps = 100
[policy]
width = 8

[policy.memory]
kind = "compressed"
window = 24
num_heads = 2
compressor = { kind = "gated-query", num_latents = 2, num_heads = 2 }
[train]
num_updates = 2
num_writes = 2
targets_per_update = 200
[evaluate]
num_episodes = 8
num_replicas = 1
"""
MY_FAMILY = """
from attrs import frozen
from cccad_core.registry import register
from cccad_envs import DarkroomSpec

@register("env", "my-family")
@frozen(kw_only=True)
class MyFamilySpec(DarkroomSpec):
    pass
"""
ROOM = '[env]\nkind = "darkroom"\nsize = 4\nhorizon = 10\n'


@frozen
class Block:
    """One code block of a document."""

    document: str
    line: int
    language: str
    text: str

    @property
    def name(self):
        return f"{self.document}:{self.line}"

    @property
    def key(self):
        """Its entry in `NOT_CODE`, if it has one."""
        where, text = (self.document, self.language), self.text.lstrip()
        return next((key for key in NOT_CODE if key[:2] == where and text.startswith(key[2])), None)


def blocks_of(document):
    text = document.read_text(encoding="utf-8")
    for block in re.finditer(r"^( *)(`{3,}|~{3,})([^\n`]*)\n(.*?)^\1\2$", text, re.MULTILINE | re.DOTALL):
        line = text[: block.start()].count("\n") + 1
        yield Block(str(document.relative_to(ROOT)), line, block[3].strip(), block[4])


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def chosen(*languages):
    blocks = [block for block in BLOCKS if block.language in languages and block.key is None]
    return pytest.mark.parametrize("block", blocks, ids=[block.name for block in blocks])


def commands():
    """Return every line for a shell, by document and in order."""
    lines: dict[str, list[str]] = {}
    for block in BLOCKS:
        if block.language in ("sh", "bash") and not block.document.startswith("docs/bring-your-own-"):
            whole = block.text.replace("\\\n", " ")
            lines.setdefault(block.document, []).extend(line.strip() for line in whole.splitlines() if line.strip())
    return lines


def run(command, line):
    """Run a line of click's in this process."""
    done = CliRunner().invoke(command, line)
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


def code_of(document, mark):
    [block] = [block for block in BLOCKS if block.document == document and mark in block.text]
    return block.text


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder in which everything that the documents' commands name is there, tiny."""
    folder = tmp_path_factory.mktemp("desk")
    for name, document, mark in (
        ("my_compressor.py", "CONTRIBUTING.md", '@register("compressor"'),
        ("submitit_executor.py", "docs/slurm.md", '@register("executor"'),
    ):
        (folder / name).write_text(code_of(document, mark), encoding="utf-8")
    for name in ("experiments", "packages", "plugins", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my_family.py").write_text(MY_FAMILY, encoding="utf-8")
    (folder / "SPEC.toml").write_text(f'name = "cad_darkroom"\n{ROOM}{SMALL}', encoding="utf-8")
    (folder / "spec.toml").write_text(f'name = "jobs"\n{ROOM}{SMALL}', encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(cccad_run, ["SPEC.toml", "--device", "cpu"])
        run(cccad_run, ["SPEC.toml", "--device", "cpu", "--set", "seed=1"])
        shutil.copytree(next(folder.glob("runs/data/darkroom-*")), "imported")
        shutil.copytree(next(folder.glob("runs/cad_darkroom-*-s0")), "runs/smoke-01234567-s0")
        example = code_of("packages/cccad-data/README.md", "verify(out, family)")
        small = example.replace("num_envs=20, env_steps=1000", "num_envs=2, env_steps=200")
        for seed, name in enumerate(("histories", "histories-a", "histories-b")):
            code = small.replace('"histories"', f'"{name}"').replace("seed=0)\n\n", f"seed={seed})\n\n")
            exec(compile(code, name, "exec"), {})
        histories = Histories.open("histories")
        earlier_file(folder / "old.hdf5", histories)
        names = ("observations", "actions", "rewards", "terminations", "truncations")
        own = {f"{task.task_id}/{name}": getattr(task, name) for task in histories.tasks[:3] for name in names}
        own |= {f"{task.task_id}/history_ends": task.history_ends for task in histories.tasks[:3]}
        np.savez("own.npz", **own)
        for seed, goal in enumerate(histories.tasks[:2]):
            with h5py.File(f"seed{seed}.hdf5", "w") as file:
                for name in ("observations", "actions", "rewards"):
                    file[name] = getattr(goal, name)
                file["terminals"], file["timeouts"] = goal.terminations, goal.truncations
    return folder


def earlier_file(path, histories):
    """Write six tasks as the earlier code had them: streams side by side."""
    with h5py.File(path, "w") as file:
        for index, task in enumerate(histories.tasks[:6]):
            after = np.roll(task.observations, -1, axis=0)
            columns = {"states": task.observations, "next_states": after, "dones": task.truncations}
            for name, column in (columns | {"actions": task.actions, "rewards": task.rewards}).items():
                streams = np.stack(np.split(np.asarray(column).astype(np.int32), task.history_ends[:-1]))
                file.create_dataset(f"{index}/{name}", data=np.swapaxes(streams, 0, 1))


@pytest.fixture
def at_desk(desk, tmp_path, monkeypatch):
    """Be at a copy of the desk, with a registry that forgets what files and blocks register."""
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    copy = shutil.copytree(desk, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(copy)
    return copy


def test_every_block_is_of_a_language_that_runs_or_is_no_code():
    assert len(BLOCKS) > 30
    strange = [block for block in BLOCKS if block.language not in LANGUAGES and not block.key]
    assert [f"{block.name}: {block.language!r}" for block in strange] == []
    assert set(NOT_CODE) - {block.key for block in BLOCKS} == set()


def test_what_is_not_run_as_it_stands_still_stands_there():
    lines = [line for lines in commands().values() for line in lines]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []
    assert [test for test in RUN_ELSEWHERE.values() if not (ROOT / test).is_file()] == []


@chosen("python")
@pytest.mark.usefixtures("at_desk")
def test_python_runs_and_prints_what_its_comments_say(block, capsys):
    if block.document in RUN_ELSEWHERE:
        pytest.skip(RUN_ELSEWHERE[block.document])
    if "submitit" in block.text:
        pytest.importorskip("submitit")
    if block.document.startswith("plugins/"):
        pytest.skip("needs what the page installs: tests/test_installation.py (slow)")
    if 'out="histories"' in block.text:
        shutil.rmtree("histories")  # that of the desk is smaller
    exec(compile(block.text, block.name, "exec"), {"__name__": "example"})
    promised = re.findall(r"^print\(.*\)  # (.*)$", block.text, re.MULTILINE)
    assert not promised or capsys.readouterr().out.splitlines() == promised


@chosen("toml")
def test_toml_is_a_spec_or_offers_parts(block, at_desk, monkeypatch):
    if block.document in RUN_ELSEWHERE:
        pytest.skip(RUN_ELSEWHERE[block.document])
    table = tomli.loads(block.text)
    if "project" in table:
        groups = table["project"]["entry-points"]
        assert [group for group in groups if group.removeprefix("cccad.") not in KINDS] == []
        return
    if "submitit_executor.py" in block.text:
        pytest.importorskip("submitit")
    if block.document.startswith("plugins/"):
        monkeypatch.syspath_prepend(str((ROOT / block.document).parent / "src"))
        for name in ("cccad_plugin_gru", "cccad_plugin_gru.conv_gru"):  # is forgotten after this test
            monkeypatch.setitem(sys.modules, name, None)
            del sys.modules[name]
        from cccad_plugin_gru.conv_gru import ConvGruSpec

        register("compressor", "conv-gru")(ConvGruSpec)
    file = at_desk / "block.toml"
    begin = "" if "name" in table else 'name = "block"\n'
    family = '[env]\nkind = "recall"\n' if "evaluate" in table else ROOM
    source = '[data.source]\nkind = "noisy-oracle"\n'
    rest = ("" if "env" in table else family) + ("" if {"source", "path"} & table.get("data", {}).keys() else source)
    file.write_text(f"{begin}{block.text}\n{rest}", encoding="utf-8")
    spec = load(file, ExperimentSpec)
    run(cccad_run, ["block.toml", "--dry-run"])
    assert spec.name == table.get("name", "block")


@pytest.mark.parametrize("document", list(commands()))
def test_the_commands_of_a_document_run_one_after_the_other(document, at_desk):
    for line in commands()[document]:
        do(line.replace("/shared", f"{at_desk}/shared"))


@pytest.mark.usefixtures("at_desk")
def test_the_commands_in_the_tables_are_understood():
    names = ("README.md", "earlier-scripts.md")  # the log keeps commands as they were
    pages = [document for document in DOCUMENTS if document.name in names]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    lines = re.findall(r"`(?:cccad-run experiments/|\.\.\. --set )[^`]+`", text)
    assert len(lines) > 6
    for line in dict.fromkeys(lines):
        whole = line.strip("`").replace("...", "cccad-run experiments/paper/cad_darkroom.toml")
        run(cccad_run, [*shlex.split(whole)[1:], "--dry-run"])


def do(line):
    """Run one line as a shell would, each of our commands in this process."""
    words = shlex.split(Template(line).safe_substitute(os.environ), comments=True)
    words = [name for word in words for name in sorted(glob.glob(word)) or [word]]  # noqa: PTH207 (absolute ones, too)
    if not words:  # a comment
        return
    program, arguments = words[0], words[1:]
    if program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, check=True)
    elif program == "sbatch":
        for number in ("0", "1"):
            os.environ["SLURM_ARRAY_TASK_ID"] = number
            do(arguments[arguments.index("--wrap") + 1].replace("--processes 4", "--processes 1"))
        del os.environ["SLURM_ARRAY_TASK_ID"]
    elif program == "exec":
        do(line.strip().removeprefix("exec "))
    elif program in {"srun", "torchrun", "accelerate"}:
        assert [word for word in arguments if word.startswith("experiments/") and not (ROOT / word).is_file()] == []
        run(cccad_run, arguments[arguments.index("cccad_train") + 1 :])
    elif program == "OMP_NUM_THREADS=1":
        assert arguments[:4] == ["python", "-m", "timeit", "-r"]
        subprocess.run([sys.executable, "-m", "timeit", "-n", "1", "-r", "1", *arguments[5:]], check=True)
    elif program == "pip" or line.startswith("cccad describe compressor conv-gru"):
        folders = [word.split("[")[0] for word in arguments if word.startswith("./")]
        assert [folder for folder in folders if not Path(folder).is_dir()] == []
    elif program == "cccad-run":
        run(cccad_run, [*arguments, *(TINY if line.startswith("cccad-run experiments/") else [])])
    elif program == "cccad":
        run(cccad, [*arguments, *(["--lives", "4"] if "memory-report" in arguments else [])])
    else:
        assert program == "cccad-data", f"no test runs a line that begins with {program!r}"
        for name in {"imported", "histories"} & set(arguments) if arguments[0] == "import" else ():
            shutil.rmtree(name)  # it makes a new one
        assert cccad_data(arguments) == 0
