"""A training stage goes on from its own checkpoints alone, and does not go on from those of other inputs."""

import pytest
import torch
from attrs import evolve
from cccad_data import Histories, NoisyOracleSpec, SamplerSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.experiment import AgentSpec
from cccad_train.fit.optimization import OptimizerSpec
from cccad_train.fit.spec import TrainSpec
from cccad_train.launch import build_accelerator
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Stage
from cccad_train.run.stages.fitting import Fit, UnusableCheckpointsError

FAMILY = DarkroomSpec(size=4, horizon=8).build()
LEVEL = OptimizerSpec(warmup_updates=0, decay_frac=0.0)  # a rate that does not depend on where training ends
AGENT = AgentSpec(train=TrainSpec(num_updates=4, num_writes=1, targets_per_update=96, optimizer=LEVEL))


@pytest.fixture
def fitted(policy, tmp_path):
    """Fit a fresh policy in a folder on inputs of a digest, to histories of a seed; return its weights."""
    accelerator = build_accelerator("cpu")

    def fit(folder, inputs, seed, num_updates=4):
        source = NoisyOracleSpec(num_envs=2, env_steps=64).build()
        histories = Histories(header={}, tasks=tuple(source.collect(FAMILY, FAMILY.tasks[:3], seed=seed)))
        agent = evolve(AGENT, train=evolve(AGENT.train, num_updates=num_updates))
        fresh = policy(FAMILY)
        stage = Fit(RunFolder(path=tmp_path / folder), accelerator, Stage(kind="train", agent="cad", inputs=inputs))
        stage.run(fresh, agent, SamplerSpec(prefetch=False).build(histories, 0))
        return torch.cat([weight.detach().flatten() for weight in fresh.parameters()])

    return fit


def test_a_checkpoint_of_other_inputs_is_refused_and_stays_as_it_was(fitted, tmp_path):
    fitted("run", "some inputs", seed=0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("state.pt")}
    with pytest.raises(UnusableCheckpointsError, match="are of other histories, plugin files or versions"):
        fitted("run", "other inputs", seed=1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("state.pt")} == before


def test_a_checkpoint_of_the_same_inputs_is_gone_on_from_to_the_same_bits(fitted):
    whole = fitted("whole", "inputs", seed=0, num_updates=4)
    half = fitted("parts", "inputs", seed=0, num_updates=2)
    assert torch.equal(fitted("parts", "inputs", seed=0, num_updates=4), whole)
    assert not torch.equal(half, whole)
