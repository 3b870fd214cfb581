"""On an accelerator: training, resuming, both precisions, compiling and playing, against the CPU within rounding.

Without one these tests are skipped; CCCAD_GPU_TESTS_ON=cpu runs them on the CPU, to test the tests.
"""

import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from attrs import evolve, fields
from cccad_core.agent import Agent
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.laws.policy import relive
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.memory.moment import Moment
from cccad_core.memory.triggers import EpisodeTrigger, EveryTrigger, FullTrigger, RandomTrigger
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.reconstruction import ReconstructionSpec
from cccad_core.objectives.terms import ReconstructionTerm
from cccad_core.play import play
from cccad_core.policy import PolicySpec
from cccad_core.registry import lookup
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Spaces, Tuple
from cccad_data import Histories, NoisyOracleSpec, SamplerSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_train import cli
from cccad_train.experiment import AgentSpec
from cccad_train.fit.optimization import OptimizerSpec
from cccad_train.fit.spec import TrainSpec
from cccad_train.launch import build_accelerator
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Stage
from cccad_train.run.stages.fitting import Fit
from click.testing import CliRunner

DEVICE = os.environ.get("CCCAD_GPU_TESTS_ON", "cuda" if torch.cuda.is_available() else "")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not DEVICE, reason="there is no CUDA device")]

FAMILY = DarkroomSpec(size=4, horizon=8).build()
SPEC = PolicySpec(
    memory=CompressedSpec(window=14, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_heads=2), width=32
)
TRIGGERS = [FullTrigger(), EpisodeTrigger(), EveryTrigger(decisions=3), RandomTrigger()]
REBUILDING = ImitationSpec(reconstruction=ReconstructionTerm(weight=0.1))
WEIGHTS = REBUILDING.weights(0.0)
assert_close = partial(torch.testing.assert_close, rtol=1e-3, atol=2e-4)
"""Sums in single precision differ by so much when they are added up in another order."""
STRUCTURED = Spaces(
    observation=Dict(
        {"image": Box((8, 8, 3), 0, 255, dtype="uint8"), "rest": Tuple((Discrete(3), Box((2,), -1.0, 1.0)))}
    ),
    action=MultiDiscrete((3, 2)),
)
COMPRESSORS = ("accumulate", "delta", "gated-query", "gru", "mean-pool", "query", "retrieval", "rmt", "sink", "window")


def on(device, batch):
    return evolve(batch, **{f.name: getattr(batch, f.name).to(device) for f in fields(HistoryBatch)})


def histories(seed=0):
    source = NoisyOracleSpec(num_envs=4, env_steps=96).build()
    return Histories(header={}, tasks=tuple(source.collect(FAMILY, FAMILY.tasks[:6], seed=seed)))


@pytest.fixture
def fitted(tmp_path):
    """Fit a fresh policy in a folder; return its weights on the CPU, and the losses that were written down."""

    def fit(folder, device=DEVICE, num_updates=6, **train):
        level = OptimizerSpec(warmup_updates=0, decay_frac=0.0, learning_rate=1e-3)
        spec = {"targets_per_update": 384, "num_writes": 2, "optimizer": level, "log_every_updates": 1, **train}
        policy = SPEC.build(Spaces.from_dict(FAMILY.spaces), seed=0)
        accelerator = build_accelerator("cpu" if device == "cpu" else "auto")
        stage = Fit(RunFolder(path=tmp_path / folder), accelerator, Stage(kind="train", agent="cad", inputs="x"))
        agent = AgentSpec(train=TrainSpec(num_updates=num_updates, **spec))
        stage.run(policy, agent, SamplerSpec().build(histories(), 0))
        rows = [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]
        return torch.cat([weight.detach().cpu().flatten() for weight in policy.parameters()]), [r["loss"] for r in rows]

    return fit


def test_training_on_the_device_is_training_on_the_cpu_within_rounding(fitted):
    weights, losses = fitted("device")
    reference, wanted = fitted("cpu", device="cpu")
    assert losses == pytest.approx(wanted, rel=1e-3)
    assert float((weights - reference).norm() / reference.norm()) < 1e-2


def test_a_run_that_is_gone_on_with_ends_as_one_that_was_left_alone(fitted, record_property):
    whole, _ = fitted("whole")
    fitted("parts", num_updates=3)
    parts, _ = fitted("parts")
    record_property("bit_identical", bool(torch.equal(whole, parts)))
    assert_close(parts, whole)


def test_half_precision_learns_what_single_precision_learns(fitted):
    single, half = (fitted(precision, num_updates=40, precision=precision)[1] for precision in ("fp32", "bf16"))
    assert np.isfinite(half).all()
    assert half[0] == pytest.approx(single[0], rel=0.03)
    assert np.mean(half[-5:]) < np.mean(half[:5])
    assert np.mean(half[-5:]) == pytest.approx(np.mean(single[-5:]), rel=0.15)


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_trigger_can_be_trained_and_is_what_it_is_on_the_cpu(trigger, precision):
    memory = evolve(SPEC.memory, window=14, carry=3, trigger=trigger)
    assert_same_losses(evolve(SPEC, memory=memory), precision)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_compressor_can_be_trained_and_is_what_it_is_on_the_cpu(name):
    compressor = lookup("compressor", name)()
    window = compressor.num_latents + 12
    assert_same_losses(
        evolve(SPEC, memory=evolve(SPEC.memory, window=window, compressor=compressor, num_heads=4)), "fp32"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_and_parts_can_be_trained_on_and_are_what_they_are_on_the_cpu(precision):
    assert_same_losses(SPEC, precision, STRUCTURED)


def assert_same_losses(spec, precision, spaces=SPACES):
    """Compare losses and gradients of a padded batch on both devices, with all that chance does in training."""
    batch = random_batch(spaces, size=4, length=40, seed=0)
    batch = evolve(batch, mask=torch.arange(40) < torch.tensor([40, 33, 40, 12])[:, None])
    moment = Moment(seed=3, state_passing=0.5, latent_noise=0.1)
    losses = {}
    for device in ("cpu", DEVICE):
        policy = spec.build(spaces, seed=0).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            measured = REBUILDING.build(policy, 2)(on(device, batch), 125.0, WEIGHTS, moment, batch.flags())
            if policy.memory.compressor.num_latents:
                measured["fold"] = ReconstructionSpec().build(policy)(on(device, batch), 125.0, {})["loss"]
        (measured["loss"] + measured.get("fold", 0.0)).backward()
        measured["gradient"] = torch.stack([p.grad.norm() for p in policy.parameters() if p.grad is not None]).norm()
        losses[device] = {
            name: float(value.detach()) for name, value in measured.items() if not name.endswith("accuracy")
        }
    assert losses[DEVICE] == pytest.approx(losses["cpu"], rel=1e-2 if precision == "fp32" else 0.1, abs=1e-3)


def test_lives_on_the_device_decide_as_on_the_cpu_also_after_a_reset():
    batch = random_batch(SPACES, size=3, length=60, seed=1)
    answer, states = {}, {}
    for device in ("cpu", DEVICE):
        agent = Agent(evolve(SPEC, memory=evolve(SPEC.memory, window=14, carry=2)).build(SPACES, seed=0).to(device))
        answer[device], states[device] = relive(agent, on(device, batch), restart_at=25)
    assert_close(answer[DEVICE].cpu(), answer["cpu"])
    assert states[DEVICE].num_writes.tolist() == states["cpu"].num_writes.tolist()


def test_play_repeats_with_the_seed_of_a_generator_on_the_device():
    def returns(seed):
        agent = Agent(SPEC.build(Spaces.from_dict(FAMILY.spaces), seed=0).to(DEVICE))
        chance = torch.Generator(DEVICE).manual_seed(seed)
        return play(agent, FAMILY.make_vec(FAMILY.tasks), num_episodes=6, generator=chance).returns

    assert torch.equal(returns(0), returns(0))
    assert not torch.equal(returns(0), returns(1))


def test_a_whole_experiment_runs_on_the_device_and_its_policy_plays_on_the_cpu(micro, tmp_path):
    device = "cpu" if DEVICE == "cpu" else "cuda"
    answer = CliRunner().invoke(cli.run, [str(micro), "--out", str(tmp_path), "--device", device])
    assert answer.exit_code == 0, answer.output
    [run] = tmp_path.glob("micro-*")
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert results["summary"]["optimal"]["normalized_last10_mean"] == 1.0
    agent = Agent.load(run / "policy")
    assert agent.act(agent.begin(2), torch.zeros(2, 2), greedy=True)[0].shape == (2,)


def held_bytes():
    return torch.cuda.memory_allocated() if DEVICE == "cuda" else 0


def test_memory_does_not_grow_over_updates():
    policy, batch = SPEC.build(SPACES, seed=0).to(DEVICE), on(DEVICE, random_batch(SPACES, size=8, length=60, seed=0))
    objective, optimizer = REBUILDING.build(policy), OptimizerSpec().build(policy)
    held = []
    for update in range(60):
        objective(batch, 480.0, WEIGHTS, Moment(seed=update, state_passing=0.5))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        held.append(held_bytes())
    assert max(held[20:]) <= max(held[:20])


def test_memory_does_not_grow_over_decisions():
    agent = Agent(SPEC.build(SPACES, seed=0).to(DEVICE))
    batch = on(DEVICE, random_batch(SPACES, size=4, length=30, seed=0))
    state, held = agent.begin(4), []
    for t in range(300):
        _, state = agent.act(state, batch.observations[:, t % 30])
        ended = batch.terminations[:, t % 30], batch.truncations[:, t % 30]
        agent.observe(state, batch.rewards[:, t % 30], *ended, batch.next_observations[:, t % 30])
        held.append(held_bytes())
    assert max(held[60:]) <= max(held[:60])


@pytest.mark.skipif(DEVICE == "cpu", reason="compiling for a CPU takes minutes and gains little")
def test_a_compiled_policy_decides_as_it_does_when_it_is_not():
    policy = SPEC.build(SPACES, seed=0).to(DEVICE).eval()
    batch = on(DEVICE, random_batch(SPACES, size=4, length=40, seed=0))
    with torch.no_grad():
        plain = policy(batch).ask(policy.head)
        try:
            compiled = torch.compile(policy)(batch).parameters
        except Exception as error:  # noqa: BLE001 - whatever the compiler raises is the finding
            pytest.xfail(f"torch.compile fails: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
    assert_close(compiled, plain)
