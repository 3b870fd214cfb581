"""A source that does not learn is refused, whichever it is; one that learns little is said, with numbers."""

import logging

import pytest
from attrs import frozen
from cccad_data import CollectionError, InlineSpec, NoisyOracleSpec, RandomSpec, collect
from cccad_data.collecting.rise import Rise
from cccad_data.families.toys import CorridorSpec, TrackSpec
from cccad_data.sources.uniform import Random

BARE = ("name", "spec", "horizon", "spaces", "tasks", "task", "split", "make_vec")
LIFE = {"num_envs": 20, "env_steps": 160}


class Idle(Random):
    """Says that it learns, and does not."""

    name = "idle"
    learns = True


@frozen(kw_only=True)
class IdleSpec(RandomSpec):
    def build(self):
        return Idle(self)


def collected(family, spec, folder):
    collect(family, spec.build(), InlineSpec().build(), out=folder, split={"seed": 0, "held_out_frac": 0.2}, seed=0)


def test_histories_that_do_not_improve_are_refused(tmp_path):
    with pytest.raises(CollectionError, match=r"'idle' does not learn: its return is 1.* early, 1.* 120 histories"):
        collected(CorridorSpec().build(), IdleSpec(**LIFE), tmp_path / "d")
    with pytest.raises(CollectionError, match="does not learn"):  # the files are there, and the answer is the same
        collected(CorridorSpec().build(), IdleSpec(**LIFE), tmp_path / "d")


def test_without_an_optimum_the_spread_of_early_returns_is_the_measure(tmp_path):
    family = CorridorSpec().build()
    bare = type("Bare", (), {name: getattr(family, name) for name in BARE})()
    with pytest.raises(CollectionError, match="early episodes having a standard deviation of"):
        collected(bare, IdleSpec(num_envs=60, env_steps=320), tmp_path / "d")


def test_a_source_that_is_not_to_learn_is_let_be(tmp_path, caplog):
    collected(TrackSpec().build(), RandomSpec(**LIFE), tmp_path / "d")
    assert not caplog.records


def test_a_source_that_learns_is_not_spoken_of(tmp_path, caplog):
    collected(CorridorSpec().build(), NoisyOracleSpec(**LIFE), tmp_path / "d")
    assert not caplog.records


def test_that_histories_improve_little_is_said_with_numbers(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("cccad_data.collecting.rise.LITTLE", 0.999)
    with caplog.at_level(logging.WARNING, logger="cccad_data.collecting.rise"):
        collected(CorridorSpec().build(), NoisyOracleSpec(**LIFE), tmp_path / "d")
    assert "'noisy-oracle' learns little: its return is" in caplog.text
    assert "% of the way to the optimum of" in caplog.text


def test_histories_of_few_episodes_are_not_judged():
    family = CorridorSpec().build()
    histories = IdleSpec(num_envs=5, env_steps=24).build().collect(family, family.tasks, seed=0)
    assert Rise.of(histories) is None
