"""Whatever lies in a file, an import ends in one sentence that names it, soon, and leaves nothing behind."""

import io
import json
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from cccad_data import Histories, InlineSpec, NoisyOracleSpec, collect
from cccad_data.cli import main
from cccad_data.families.toys import CorridorSpec
from cccad_data.interchange import export_histories

LENGTH = 12
ENDS = np.isin(np.arange(LENGTH), [5, 11])


def d4rl():
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(LENGTH, 3)), rng.normal(size=(LENGTH, 2))
    flags = {"terminals": ENDS, "timeouts": ENDS}
    return {"observations": observations, "actions": actions, "rewards": np.ones(LENGTH), **flags}


def legacy():
    walk = np.tile([3, 4, 5, 6, 6, 6], 2)[:, None]
    states = np.stack([walk, walk], 1)
    columns = {"actions": np.zeros((LENGTH, 2), int), "rewards": (states[..., 0] >= 5) * 1, "dones": np.c_[ENDS, ENDS]}
    return {f"0/{name}": array for name, array in {"states": states, "next_states": states, **columns}.items()}


def xland():
    states, dones = np.zeros((2, LENGTH, 3), np.uint8), np.stack([ENDS, ENDS])
    columns = {"actions": states[..., 0], "rewards": np.ones((2, LENGTH)), "dones": dones}
    return {f"0/{name}": array for name, array in {"states": states, **columns}.items()}


FORMATS = {"d4rl": d4rl, "legacy": legacy, "xland": xland}
NEEDED = {form: [name for name in make() if name != "timeouts"] for form, make in FORMATS.items()}
LEAVES = [(form, name) for form, names in NEEDED.items() for name in names]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys, corridor_installed):  # noqa: ARG001  # the family of the legacy format
    """Import a file that is no good, with relative names, and return the sentence; nothing may be left."""
    monkeypatch.chdir(tmp_path)

    def command(name, form, *arguments, is_large=False):
        family = ("--env", "corridor", "size=7", "horizon=6") if form == "legacy" else ()
        before, start = sorted(tmp_path.rglob("*")), time.monotonic()
        if is_large:
            tracemalloc.start()
        code = main(["import", name, "out", "--from", form, *family, *arguments])
        assert not is_large or tracemalloc.get_traced_memory()[1] < 2**28
        tracemalloc.stop()
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.startswith("cccad-data: ")
        assert error.count("\n") == 1
        assert name in error
        assert "partial" not in error
        assert sorted(tmp_path.rglob("*")) == before
        assert time.monotonic() - start < 10
        return error

    return command


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file[name] = array


WRONG = {
    "missing": lambda _: None,
    "a text": lambda _: "words",
    "texts": lambda array: np.full(array.shape, b"x"),
    "complex": lambda array: array.astype(complex),
    "empty": lambda array: array[:0],
    "a number": lambda _: 3.0,
    "one axis less": lambda array: array[0],
    "one axis more": lambda array: np.stack([array, array], -1),
    "one row less": lambda array: array[1:],
    "one column more": lambda array: np.concatenate([array, array[:, :1]], 1) if array.ndim > 1 else array[1:],
    "nan": lambda array: np.full(array.shape, np.nan),
    "infinity": lambda array: np.full(array.shape, np.inf),
    "huge": lambda array: np.full(array.shape, 1e300),
    "half": lambda array: np.full(array.shape, 0.5) if array.dtype.kind in "iub" else np.full(array.shape, np.nan),
    "negative": lambda array: np.full(array.shape, -(2**40)) if array.dtype.kind in "iub" else array[:0],
}
SOUND = {
    ("d4rl", "observations", "one axis more"),
    ("d4rl", "actions", "one axis more"),
    ("d4rl", "terminals", "missing"),
    ("xland", "0/states", "one axis more"),
} | {
    ("d4rl", name, kind) for name in ("observations", "actions") for kind in ("one column more", "huge")
}  # there are time limits still, or it is a space of that shape


@pytest.mark.usefixtures("corridor_installed")
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize(("form", "name"), LEAVES)
def test_a_wrong_array_is_refused(tmp_path, refused, form, name, kind):
    if (form, name, kind) in SOUND:
        return
    arrays = FORMATS[form]()
    write(tmp_path / "x.hdf5", {**arrays, name: WRONG[kind](arrays[name])})
    assert refused("x.hdf5", form)


@pytest.mark.parametrize("form", FORMATS)
class TestFiles:
    def test_the_sound_one_is_imported(self, tmp_path, monkeypatch, corridor_installed, form):
        monkeypatch.chdir(tmp_path)
        write("x.hdf5", FORMATS[form]())
        family = ("--env", "corridor", "size=7", "horizon=6", "--split", "seed=1") if form == "legacy" else ()
        code = main(["import", "x.hdf5", "out", "--from", form, *family])
        assert code == 0 or form == "legacy"  # its next states are made up
        assert code == 2 or Histories.open("out").num_env_steps

    @pytest.mark.parametrize("content", [b"", b"\x89HDF", b"words", bytes(2000)])
    def test_garbage(self, tmp_path, refused, form, content):
        (tmp_path / "x.hdf5").write_bytes(content)
        assert refused("x.hdf5", form)

    @pytest.mark.parametrize("frac", [0.2, 0.5, 0.9])
    def test_a_file_that_was_cut(self, tmp_path, refused, form, frac):
        write(tmp_path / "y.hdf5", FORMATS[form]())
        content = (tmp_path / "y.hdf5").read_bytes()
        (tmp_path / "x.hdf5").write_bytes(content[: int(frac * len(content))])
        assert refused("x.hdf5", form)

    def test_one_that_is_not_there_or_a_folder(self, tmp_path, refused, form):
        assert refused("nowhere.hdf5", form)
        (tmp_path / "folder.hdf5").mkdir()
        assert refused("folder.hdf5", form)

    def test_an_empty_one(self, tmp_path, refused, form):
        write(tmp_path / "x.hdf5", {})
        assert refused("x.hdf5", form)

    @pytest.mark.parametrize("link", ["external", "soft"])
    def test_links_are_not_followed(self, tmp_path, refused, form, link):
        arrays, name = FORMATS[form](), NEEDED[form][0]
        write(tmp_path / "y.hdf5", arrays)
        write(tmp_path / "x.hdf5", {**arrays, "spare": arrays[name], name: None})
        with h5py.File(tmp_path / "x.hdf5", "r+") as file:
            file[name] = h5py.ExternalLink("y.hdf5", name) if link == "external" else h5py.SoftLink("/spare")
        assert refused("x.hdf5", form)

    def test_arrays_that_lie_in_another_file(self, tmp_path, refused, form):
        arrays, name = FORMATS[form](), NEEDED[form][0]
        write(tmp_path / "y.hdf5", arrays)
        write(tmp_path / "x.hdf5", {**arrays, name: None})
        with h5py.File(tmp_path / "x.hdf5", "r+") as file:
            layout = h5py.VirtualLayout(arrays[name].shape, arrays[name].dtype)
            layout[...] = h5py.VirtualSource("y.hdf5", name, arrays[name].shape)
            file.create_virtual_dataset(name, layout)
        assert "borrows its bytes" in refused("x.hdf5", form)

    def test_an_absurd_size(self, tmp_path, refused, form):
        arrays, name = FORMATS[form](), NEEDED[form][-1]
        write(tmp_path / "x.hdf5", {**arrays, name: None})
        with h5py.File(tmp_path / "x.hdf5", "r+") as file:
            file.create_dataset(name, (10**7, *arrays[name].shape[1:]), "f8", chunks=True)
        assert "declares " in refused("x.hdf5", form, is_large=True)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An export of ours, as its members."""
    folder, family = tmp_path_factory.mktemp("sound"), CorridorSpec().build()
    source = NoisyOracleSpec(num_envs=3, env_steps=100).build()
    collect(family, source, InlineSpec().build(), out=folder / "set", split={"seed": 0}, seed=0, max_tasks=2)
    export_histories(folder / "set", folder / "sound.npz", form="npz")
    with zipfile.ZipFile(folder / "sound.npz") as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(name, content)


def npy(array, **kwargs):
    content = io.BytesIO()
    np.save(content, array, **kwargs)
    return content.getvalue()


def changed_header(archive, change):
    header = json.loads(np.load(io.BytesIO(archive["header.npy"])).tobytes())
    change(header)
    return {**archive, "header.npy": npy(np.frombuffer(json.dumps(header).encode(), np.uint8))}


FIRST = "00000/rewards.npy"
MEMBERS = {
    "missing": None,
    "empty": b"",
    "cut": None,
    "no header": b"\x93NUMPY",
    "objects": npy(np.array([{}]), allow_pickle=True),
    "texts": npy(np.array(["a"])),
    "other size": npy(np.zeros(3)),
    "two axes": npy(np.zeros((288, 1), "f4")),
    "nan": npy(np.full(288, np.nan, "f4")),
    "wide": npy(np.full(288, 1e300)),
    "version 9": b"\x93NUMPY\x09\x00" + bytes(200),
    "absurd": b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (20000000000000,), }".ljust(117) + b"\n",
}  # fmt: skip


class TestArchives:
    @pytest.mark.parametrize("kind", MEMBERS)
    @pytest.mark.parametrize("member", [FIRST, "00000/observations.npy", "header.npy"])
    def test_a_wrong_member(self, tmp_path, archive, refused, member, kind):
        if (member, kind) in {("header.npy", "missing"), ("00000/observations.npy", "two axes")}:
            return  # without a header these are flat arrays of tasks 00000, 00001, ...; observations have two axes
        content = archive[member][:-7] if kind == "cut" else MEMBERS[kind]
        packed(tmp_path / "x.npz", {**archive, member: content})
        assert refused("x.npz", "npz", is_large=kind == "absurd")

    @pytest.mark.parametrize("content", [b"", b"PK nothing", b"PK\x05\x06" + bytes(18), bytes(999)])
    def test_garbage(self, tmp_path, refused, content):
        (tmp_path / "x.npz").write_bytes(content)
        assert refused("x.npz", "npz")

    @pytest.mark.parametrize("frac", [0.3, 0.9, 0.999])
    def test_one_that_was_cut(self, tmp_path, archive, refused, frac):
        packed(tmp_path / "y.npz", archive)
        content = (tmp_path / "y.npz").read_bytes()
        (tmp_path / "x.npz").write_bytes(content[: int(frac * len(content))])
        assert refused("x.npz", "npz")

    def patched(self, path, field, value, size=2):
        """Change a field of every member's entry in the zip's own directory, and in the member's own head."""
        content = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\x01\x02", field), (b"PK\x03\x04", field - 2)):
            place = content.find(mark)
            while place >= 0:
                content[place + offset : place + offset + size] = value.to_bytes(size, "little")
                place = content.find(mark, place + 4)
        path.write_bytes(content)

    def test_encrypted_members(self, tmp_path, archive, refused):
        packed(tmp_path / "x.npz", archive)
        self.patched(tmp_path / "x.npz", 8, 1)
        assert "encrypted" in refused("x.npz", "npz")

    def test_an_unknown_method_of_packing(self, tmp_path, archive, refused):
        packed(tmp_path / "x.npz", archive)
        self.patched(tmp_path / "x.npz", 10, 99)
        assert refused("x.npz", "npz")

    def test_a_member_that_declares_more_than_can_be_in_it(self, tmp_path, archive, refused):
        packed(tmp_path / "x.npz", archive)
        self.patched(tmp_path / "x.npz", 24, 2**31, size=4)
        assert "declares 2,147,483,648 bytes" in refused("x.npz", "npz", is_large=True)

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: header.pop("spaces"),
            lambda header: header.update(format="cccad-history/9"),
            lambda header: header["spaces"].update(action={"kind": "discrete"}),
            lambda header: header["spaces"].update(action={"kind": "discrete", "n": "3"}),
            lambda header: header["spaces"].update(action={"kind": "discrete", "n": 2}),
            lambda header: header["spaces"].update(observation={"kind": "box", "shape": [2], "low": 0, "high": 9}),
            lambda header: header.update(tasks=[]),
            lambda header: header["tasks"].append(header["tasks"][0]),
            lambda header: header["tasks"].append({"task_id": "more", "params": {}}),
            lambda header: header.update(tasks=header["tasks"] * 2),
        ],
    )
    def test_a_header_that_does_not_fit(self, tmp_path, archive, refused, change):
        packed(tmp_path / "x.npz", changed_header(archive, change))
        assert refused("x.npz", "npz")

    def test_settings_for_an_export_of_ours(self, tmp_path, archive, refused):
        packed(tmp_path / "x.npz", archive)
        assert "brings its own family" in refused("x.npz", "npz", "--set", "n=3")
        assert "brings its own family" in refused("x.npz", "npz", "--env", "corridor")

    @pytest.mark.parametrize(
        "changes",
        [
            {"history_ends": np.array([5, 5])},
            {"history_ends": np.array([0, 5])},
            {"history_ends": np.array([99])},
            {"history_ends": np.array([1.5])},
            {"history_ends": np.array([[5]])},
            {"history_ends": np.array([], int)},
            {"episode_ends": np.array([12]), "final_observations": np.zeros((2, 3))},
            {"episode_ends": np.array([12]), "final_observations": np.zeros((1, 2))},
            {"observations": np.zeros((11, 3)), "episode_ends": np.array([12]), "final_observations": np.zeros((1, 3))},
            {"optimal_actions": np.zeros((12, 3))},
        ],
    )
    def test_flat_arrays_whose_offsets_do_not_fit(self, tmp_path, refused, changes):
        np.savez(tmp_path / "x.npz", **{**d4rl(), **changes})
        assert refused("x.npz", "npz")
