"""Warm starts, teachers and chance: in the right order, refused where they cannot be, and resumed to the bit."""

import pytest
import torch
from cccad_core.specs import load
from cccad_train.experiment import ExperimentSpec
from cccad_train.fit import checkpoints
from cccad_train.run.graph import resolve

IMITATION = "train.objective.kind='imitation'"
WARM, TEACHER = (
    "train.warm_start='ad'",
    "train.objective.teacher={ agent = 'ad', weight = 0.5 }",
)
OWN_STATE = "train.state_passing={ frac = 0.5, donor = 'own' }"
AIDS = [
    *(WARM, TEACHER, "train.state_passing={ frac = 0.5 }", "train.latent_noise=0.1"),
    "train.objective.reconstruction={ weight = 0.1, decay_frac = 0.5, reward_weighted = true }",
]


def overridden(*overrides):
    return [word for override in (IMITATION, *overrides) for word in ("--set", override)]


def weights(folder, stage):
    state = checkpoints.load_latest(folder / "checkpoints" / stage)
    assert state is not None
    return state["policy"]


def same(ours, theirs, names):
    return all(torch.equal(ours[name], theirs[name]) for name in names)


def test_a_spec_of_old_is_told_the_new_place_of_every_field_that_moved(micro, cccad_run, tmp_path):
    old = (
        "train.reconstruction={ weight = 0.1 }",
        "train.teacher={ agent = 'ad' }",
        "train.auxiliary={ weight = 2.0 }",
    )
    done = cccad_run(micro, "--out", tmp_path, *[word for field in old for word in ("--set", field)])
    assert done.code == 2
    for name in ("reconstruction", "teacher", "auxiliary"):
        assert f"the field '{name}' is now 'objective.{name}' @ train" in done.err


def test_a_spec_of_old_is_told_at_once_where_every_field_of_its_memory_went(cccad_run, tmp_path):
    spec = tmp_path / "old.toml"
    policy = "[policy]\nnum_layers = 1\nnum_heads = 2\nmlp_ratio = 2\n"
    window = "[policy.context]\nwindow = 14\ncarry = 1\ntrigger = { kind = 'full' }\nsize = 1\n"
    spec.write_text(f"name = 'old'\n{policy}{window}[policy.compressor]\nkind = 'window'\n[controls.ad.policy]\n")
    setting = "controls.ad.policy.compressor.num_latents=4"
    done = cccad_run(spec, "--out", tmp_path, "--set", setting)
    assert done.code == 2
    wanted = {f"context.{name}": f"memory.{name}" for name in ("window", "carry", "trigger")}
    wanted |= {name: f"memory.{name}" for name in ("num_layers", "num_heads", "mlp_ratio", "compressor")}
    for old, new in wanted.items():
        assert f"the field '{old}' is now '{new}' @ policy\n" in done.err
    assert "the field 'compressor' is now 'memory.compressor' @ controls.ad.policy" in done.err
    assert "extra field 'context' @ policy" in done.err  # for what is left of it


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.warm_start='da'"], "'train.warm_start' of 'cad' must name another agent (ad): 'da'"),
        (
            ["train.objective.teacher={ agent = 'cad' }"],
            "'train.objective.teacher' of 'cad' must name another agent (ad): 'cad'",
        ),
        (
            [WARM, "controls.ad.policy.width=32"],
            "'train.warm_start' of 'cad' needs the 'policy.width' of 'ad', 32, not 16",
        ),
        (
            [WARM, "controls.ad.train.objective={ kind = 'imitation', teacher = { agent = 'cad' } }"],
            "each of ad, cad must be trained before the others",
        ),
        (["controls.ad.train.latent_noise=0.1"], "this policy's memory has none"),
        (
            ["controls.ad.train.optimizer.compressor_scale=2.0"],
            "'optimizer.compressor_scale' is about a compressor that",
        ),
        (["evaluate.sliding=['cad']"], "'evaluate.sliding' must name agents with a plain window (ad): 'cad'"),
        (["train.state_passing.frac=1.5"], "must be >= 0.0 and <= 1.0: 1.5 @ train.state_passing"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(overrides, words, micro, cccad_run, tmp_path):
    done = cccad_run(micro, "--out", tmp_path, *overridden(*overrides))
    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_pre_training_tells_how_much_better_it_is_than_the_most_common_value(micro_run):
    rows = [row for row in (micro_run / "metrics.jsonl").read_text().splitlines() if '"pretrain-cad"' in row]
    for name in ("action", "reward", "next_observation"):
        assert all(f'"reconstruction_{name}_accuracy"' in row for row in rows)
        assert all(f'"reconstruction_{name}_majority"' in row for row in rows)


@pytest.mark.timeout(600)
def test_all_aids_together_start_from_the_named_agent_and_resume_with_the_same_bits(
    micro, cccad_run, cccad_run_killed, tmp_path, only_run
):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for stage in ("collect", "pretrain", "train"):
        done = cccad_run(micro, "--out", calm, "--only", stage, *overridden(*AIDS))
        assert done.code == 0, done.err
    ours = only_run(calm)
    ad, pretrained, trained = (weights(ours, stage) for stage in ("train-ad", "pretrain-cad", "train-cad"))
    lent = [name for name in ad if name.split(".")[0] in ("layout", "backbone", "head")]
    assert same(pretrained, ad, lent)
    assert not same(trained, ad, lent)
    assert "teacher_nats" in (ours / "metrics.jsonl").read_text()
    killed.mkdir()
    (calm / "data").rename(killed / "data")
    stopped = cccad_run_killed("*/train-cad/update_10", 1, micro, "--out", killed, *overridden(*AIDS))
    assert stopped.code == -9, stopped.err
    assert [path.name for path in checkpoints.updates(only_run(killed) / "checkpoints" / "train-cad")] == ["update_5"]
    done = cccad_run(micro, "--out", killed, "--only", "train", "--resume", *overridden(*AIDS))
    assert done.code == 0, done.err
    assert same(weights(only_run(killed), "train-cad"), trained, trained)


def test_every_aid_changes_what_is_learned(micro, copied_run, cccad_run):
    ends = []
    for aid in ([], *([aid] for aid in (*AIDS[1:], OWN_STATE))):
        overrides = ["train.num_updates=2", *aid]
        done = cccad_run(micro, "--out", copied_run.parent, "--only", "pretrain", *overridden(*overrides))
        assert done.code == 0, done.err
        done = cccad_run(micro, "--out", copied_run.parent, "--only", "train", *overridden(*overrides))
        assert done.code == 0, done.err
        spec = load(micro, ExperimentSpec, [IMITATION, *overrides])
        ends.append(weights(copied_run.parent / resolve(spec).folder_name, "train-cad"))
    names = [name for name in ends[0] if not name.startswith("reconstruction.")]
    assert [same(ends[0], end, names) for end in ends[1:]] == [False] * 5
