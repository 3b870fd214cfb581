"""A training stage goes on from its own checkpoints alone, and does not go on from those of other inputs."""

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.encoders.linear import ProjectionSpec
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Spaces
from cccad_data import Histories, NoisyOracleSpec, SamplerSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.point_robot import PointRobotSpec
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


def test_an_encoder_that_measures_is_shown_the_observations_before_the_first_update_alone(tmp_path):
    family = PointRobotSpec(horizon=8).build()
    source = NoisyOracleSpec(num_envs=2, env_steps=64).build()
    histories = Histories(header={}, tasks=tuple(source.collect(family, family.tasks[:3], seed=0)))
    spec = PolicySpec(encoder=ProjectionSpec(scaling="measured"), memory=CompressedSpec(num_heads=2), width=16)
    centres = []
    for num_updates in (2, 4):  # the second one goes on from the first
        policy = spec.build(Spaces.from_dict(family.spaces), seed=0)
        agent = evolve(AGENT, train=evolve(AGENT.train, num_updates=num_updates))
        stage = Stage(kind="train", agent="cad", inputs="x")
        sampler = SamplerSpec(prefetch=False).build(histories, 0)
        Fit(RunFolder(path=tmp_path), build_accelerator("cpu"), stage).run(policy, agent, sampler)
        centres.append(policy.layout.observation.centre.clone())
    mean = np.concatenate([task.observations.reshape(-1, 2) for task in histories.tasks]).mean(0)
    torch.testing.assert_close(centres[0], torch.tensor(mean), atol=0.05, rtol=0.0)
    assert torch.equal(*centres)
