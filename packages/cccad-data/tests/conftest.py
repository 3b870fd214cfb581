from pathlib import Path

import pytest
from cccad_data import InlineSpec, NoisyOracleSpec, collect
from cccad_data.testing import Corridor, CorridorSpec

SPLIT = {"seed": 0, "held_out_frac": 0.2}


@pytest.fixture
def corridor() -> Corridor:
    return CorridorSpec().build()


@pytest.fixture
def dataset(tmp_path: Path, corridor: Corridor) -> Path:
    """Noisy-oracle histories of six corridors in three shards: three histories of 100 env steps per task."""
    source = NoisyOracleSpec(num_envs=3, env_steps=100, tasks_per_unit=2).build()
    return collect(corridor, source, InlineSpec().build(), out=tmp_path / "set", split=SPLIT, seed=4)
