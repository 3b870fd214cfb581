"""Fixtures of the tests of cccad-data: a corridor, its histories, and a distribution that offers it."""

from pathlib import Path

import pytest
from cccad_data import Histories, InlineSpec, NoisyOracleSpec, collect
from cccad_data.families.toys import Corridor, CorridorSpec

SPLIT = {"seed": 0, "held_out_frac": 0.2}


@pytest.fixture
def corridor() -> Corridor:
    return CorridorSpec().build()


@pytest.fixture
def dataset(tmp_path: Path, corridor: Corridor) -> Path:
    """Noisy-oracle histories of six corridors in three shards: three histories of 100 env steps per task."""
    source = NoisyOracleSpec(num_envs=3, env_steps=100, tasks_per_unit=2).build()
    return collect(corridor, source, InlineSpec().build(), out=tmp_path / "set", split=SPLIT, seed=4)


@pytest.fixture
def corridor_installed(tmp_path, monkeypatch):
    """A distribution on the path that offers the corridor, as an installed package of families would."""
    info = tmp_path / "site" / "corridors-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corridors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cccad.env]\ncorridor = cccad_data.families.toys:CorridorSpec\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.fixture
def assert_same():
    """Compare two folders of histories bit by bit."""

    def compare(left, right):
        left, right = Histories.open(left), Histories.open(right)
        assert left.header == right.header
        for ours, theirs in zip(left, right, strict=True):
            assert ours.arrays().keys() == theirs.arrays().keys()
            for name, array in ours.arrays().items():
                assert array.dtype == theirs.arrays()[name].dtype
                assert array.tobytes() == theirs.arrays()[name].tobytes()

    return compare
