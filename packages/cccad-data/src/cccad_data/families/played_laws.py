"""The laws of a family's vector environments: what is played in one row depends on its task, its seed and its actions.

Letters in shapes: `t` env steps, `e` rows, `o` observation features.
"""

from collections.abc import Callable, Sequence

import numpy as np
from attrs import fields_dict, frozen

from cccad_data import spaces
from cccad_data.collecting.recorder import refuse_other_autoresets, same_step
from cccad_data.families.declared import contradiction
from cccad_data.family import (
    HasReferencePlayers,
    KnowsDynamics,
    KnowsOptimalActions,
    Replayable,
    Task,
    TaskFamily,
    VectorEnvironment,
    episodes_per_cycle,
    has_random_rewards,
    has_random_transitions,
    optimal_returns,
    random_return_errors,
    random_returns,
)
from cccad_data.laws import require
from cccad_data.narrow import Border
from cccad_data.plain import Array

FEW_ENV_STEPS, MANY_ENV_STEPS = 300, 4_000
_SEED = 7
_MUCH = 1e6  # no task pays so much more than it can in one env step
_REPLICAS = 8


@frozen(kw_only=True, eq=False)
class Lives:
    """What every row lived through, `t e ...`, and the same arrays as they looked when they were handed out."""

    observations: Array
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    next_observations: Array

    def difference(self, other: "Lives", rows: slice = slice(None)) -> str:
        """Return the names of the arrays that are not those of *other* in *rows*."""
        pairs = ((name, getattr(self, name)[:, rows], getattr(other, name)) for name in fields_dict(Lives))
        return ", ".join(name for name, ours, theirs in pairs if not np.array_equal(ours, theirs))


def check_played(family: TaskFamily, tasks: Sequence[Task], *, num_env_steps: int) -> None:
    """Check the laws of the vector environments of *family* on *tasks*, of which there are two at least."""
    actions = random_actions(family, num_env_steps, len(tasks))
    environment = family.make_vec(tasks)
    law = "a row per task"
    require(law, environment.num_envs == len(tasks), f"{len(tasks)} tasks are played in {environment.num_envs} rows")
    refuse_other_autoresets(environment)
    lives = lived(environment, family, actions, seed=_SEED)
    law = "the same seed gives the same episodes"
    for other, what in ((environment, "it is reset again"), (family.make_vec(tasks), "it is made again")):
        differing = lives.difference(lived(other, family, actions, seed=_SEED))
        require(law, not differing, f"{differing} differ when {what}")
    for row, task in enumerate(tasks):  # row i draws as if it were alone, and had been reset with seed + i
        alone = lived(family.make_vec([task]), family, actions[:, row : row + 1], seed=_SEED + row)
        differing = lives.difference(alone, slice(row, row + 1))
        require("rows do not mix", not differing, f"{differing} of row {row} differ when it is played alone")
    _check_restarts(family, tasks, lives)
    _check_masked_reset(family, tasks, actions)
    _check_optimal_actions(family, tasks)
    _check_reference_players(family, tasks)
    for row, task in enumerate(tasks):
        _check_replay(family, task, lives, row)


def random_actions(family: TaskFamily, num_env_steps: int, num_rows: int) -> Array:
    """Return uniformly random actions, `t e ...`; of a box without bounds, numbers up to 1,000."""
    space, generator = family.spaces["action"], np.random.default_rng(5)
    if space["kind"] == "box":
        low, high = (bound.clip(-1e3, 1e3) for bound in spaces.bounds(space))
        drawn = generator.uniform(low, high, (num_env_steps, num_rows, len(low)))
        return drawn.astype(np.float32).reshape(num_env_steps, num_rows, *space["shape"])
    if space["kind"] == "discrete":
        return generator.integers(0, space["n"], (num_env_steps, num_rows))
    return spaces.uniform_actions(space, generator.random((num_env_steps, num_rows, spaces.num_features(space))))


def lived(environment: VectorEnvironment, family: TaskFamily, actions: Array, *, seed: int) -> Lives:
    """Return what *actions*, `t e ...`, lead to; raises UnfitValueError for an observation outside its space."""
    border = Border(family.spaces["observation"])
    observations = environment.reset(seed=seed)[0]
    handed_out, copies = [observations], [np.array(observations)]
    columns: dict[str, list[Array]] = {name: [] for name in fields_dict(Lives)}
    age = np.zeros(environment.num_envs, np.int64)
    for now, chosen in enumerate(actions):
        before = np.array(chosen)
        outcome = same_step(environment.step(spaces.handed(family.spaces["action"], chosen)))
        require("actions are only read", np.array_equal(chosen, before), "step() changes the array that it is given")
        following, rewards, terminations, truncations, infos = outcome
        _check_shapes(environment, rewards, terminations, truncations)
        true_next = infos.get("final_obs", following)
        for name, values in (("observations", observations), ("next_observations", true_next)):
            place = f"family {family.name!r}, env step {now:,}, the observation of a row"
            columns[name].append(border(values, place).reshape(len(age), -1))
        for name, values in (("actions", chosen), ("rewards", rewards)):
            columns[name].append(np.array(values))
        columns["terminations"].append(np.array(terminations))
        columns["truncations"].append(np.array(truncations))
        handed_out += [following, rewards]
        copies += [np.array(following), np.array(rewards)]
        observations = following
        age = (age + 1) * ~(terminations | truncations)
        is_over = bool((age < family.horizon).all())
        require("episodes end", is_over, f"one goes on after {family.horizon} env steps, its horizon")
    are_kept = all(np.array_equal(array, copied) for array, copied in zip(handed_out, copies, strict=True))
    require("arrays stay as they were handed out", are_kept, "step() changes an array that it returned earlier")
    return Lives(**{name: np.stack(values) for name, values in columns.items()})


def _check_shapes(environment: VectorEnvironment, rewards: Array, terminations: Array, truncations: Array) -> None:
    law, shape = "rewards and flags come row by row", (environment.num_envs,)
    for name, values, kinds in (
        ("rewards", rewards, "fiu"),
        ("terminations", terminations, "b"),
        ("truncations", truncations, "b"),
    ):
        array = np.asarray(values)
        is_right = array.shape == shape and array.dtype.kind in kinds
        require(law, is_right, f"{name} have dtype {array.dtype} and shape {array.shape}, for {shape[0]} rows")


def _check_restarts(family: TaskFamily, tasks: Sequence[Task], lives: Lives) -> None:
    """Where every reset shows the same first observation, an ended row must show it too."""
    border, environment = Border(family.spaces["observation"]), family.make_vec(tasks)
    first = (border(environment.reset(seed=seed)[0], "a first observation") for seed in range(5))
    starts = [observations.reshape(len(tasks), -1) for observations in first]
    for row in range(len(tasks)):
        if any((start[row] != starts[0][row]).any() for start in starts):
            continue
        ended = np.flatnonzero((lives.terminations | lives.truncations)[:-1, row])
        is_right = bool((lives.observations[ended + 1, row] == starts[0][row]).all())
        what = "a row whose episode ended does not show the first observation of the next one"
        require("ended rows restart at once", is_right, what)


def _check_masked_reset(family: TaskFamily, tasks: Sequence[Task], actions: Array) -> None:
    """Reset row 1 alone, in the middle of an episode: the others live on, and it begins a life of its own."""
    law, num_before = "rows are reset apart", max(1, min(family.horizon - 1, 5))
    mask = np.arange(len(tasks)) == 1
    masked, untouched, alone = family.make_vec(tasks), family.make_vec(tasks), family.make_vec(tasks[1:2])
    now = masked.reset(seed=_SEED)[0]
    untouched.reset(seed=_SEED)
    for chosen in actions[:num_before]:
        now = masked.step(chosen)[0]
        untouched.step(chosen)
    before, number = np.array(now), 40
    options = {"reset_mask": mask.copy()}
    after = np.array(masked.reset(seed=number, options=options)[0])
    is_kept = [*options] == ["reset_mask"] and np.array_equal(options["reset_mask"], mask)
    require("options are only read", is_kept, "reset() takes the mask out of the options that it is given")
    what = 'reset(options={"reset_mask": ...}) changes a row that the mask leaves out'
    require(law, np.array_equal(before[~mask], after[~mask]), what)
    first = np.array(alone.reset(seed=number + 1)[0])
    require(law, np.array_equal(after[mask], first), "a row that is reset apart does not begin as it does when alone")
    for chosen in actions[num_before:][: 2 * min(family.horizon, FEW_ENV_STEPS)]:
        whole, others, single = masked.step(chosen), untouched.step(chosen), alone.step(chosen[1:2])
        for part, other, own in zip(whole[:4], others[:4], single[:4], strict=True):
            require(law, np.array_equal(part[~mask], other[~mask]), f"{what}, later in its life")
            require(
                law, np.array_equal(part[mask], own), "a row that is reset apart does not live as it does when alone"
            )


def _check_optimal_actions(family: TaskFamily, tasks: Sequence[Task]) -> None:
    environment, border = family.make_vec(tasks), Border(family.spaces["action"])
    if not isinstance(environment, KnowsOptimalActions):
        return
    environment.reset(seed=_SEED)
    law = "asking for optimal actions changes nothing"
    for _ in range(min(2 * family.horizon, FEW_ENV_STEPS)):
        best = np.array(environment.optimal_actions())
        border(best, f"family {family.name!r}, an optimal action")
        require("optimal actions come row by row", len(best) == len(tasks), f"{len(best)} come for {len(tasks)} rows")
        require(law, np.array_equal(best, environment.optimal_actions()), "asked twice, it answers differently")
        environment.step(best)


def _check_reference_players(family: TaskFamily, tasks: Sequence[Task]) -> None:
    if not isinstance(family, HasReferencePlayers):
        return
    border = Border(family.spaces["action"])
    for name, make in family.reference_players.items():
        environment = family.make_vec(tasks)
        environment.reset(seed=_SEED)
        player = make(environment, _SEED)
        for _ in range(min(family.horizon, 20)):
            chosen = np.array(player.choose())
            border(chosen, f"family {family.name!r}, an action of its player {name!r}")
            require(
                "players act row by row", len(chosen) == len(tasks), f"{name!r} has {len(chosen)} for {len(tasks)} rows"
            )
            player.learn(chosen, environment.step(chosen)[1])


def _check_replay(family: TaskFamily, task: Task, lives: Lives, row: int) -> None:
    """Hold what was played against what the family computes from observations and actions alone."""
    ends = np.flatnonzero(lives.terminations[:, row] | lives.truncations[:, row]) + 1
    if not len(ends):
        return
    whole = slice(0, int(ends[-1]))
    observations, actions, following = (
        getattr(lives, name)[whole, row] for name in ("observations", "actions", "next_observations")
    )
    rewards = lives.rewards[whole, row].astype(np.float32)
    law = "a true history replays to itself"
    if isinstance(family, KnowsDynamics):
        recorded = {"recorded": following} if has_random_transitions(family) else {}
        led_to = family.next_observations(task, observations, actions, **recorded)
        require(
            law, are_close(led_to, following), f"on {task.task_id} next_observations() says other than what followed"
        )
    if isinstance(family, Replayable):
        is_random = has_random_rewards(family)
        replayed = family.replay(
            task, observations, actions, following, ends, **({"rewards": rewards} if is_random else {})
        )
        played = (rewards, lives.terminations[whole, row], lives.truncations[whole, row])
        for name, computed, right in zip(("rewards", "terminations", "truncations"), replayed, played, strict=True):
            require(law, are_close(computed, right), f"on {task.task_id} replay() gives other {name} than were played")
        if is_random:
            strange = rewards + np.float32(_MUCH) * (np.arange(len(rewards)) == 0)
            computed, *_ = family.replay(task, observations, actions, following, ends, rewards=strange)
            what = f"on {task.task_id} replay() believes a reward that is {_MUCH:,.0f} too high"
            require("replay believes only what can be", not are_close(computed, strange), what)


def are_close(values: Array, right: Array) -> bool:
    """Return whether *values* are *right*; what is computed in floats may differ in its last digits."""
    values, right = np.asarray(values), np.asarray(right)
    return values.shape == right.shape and bool(np.isclose(values, right, rtol=1e-5, atol=1e-6).all())


def check_earned(family: TaskFamily, tasks: Sequence[Task]) -> None:
    """Play by the optimal and by the random policy, and compare what that earns with what is declared."""
    best, chance, cycle = optimal_returns(family, tasks), random_returns(family, tasks), episodes_per_cycle(family)
    num_episodes = -(-max(20, MANY_ENV_STEPS // family.horizon) // cycle) * cycle
    rows = [task for task in tasks for _ in range(_REPLICAS)]
    actions = iter(random_actions(family, num_episodes * family.horizon, len(rows)))
    ids, environment = [task.task_id for task in tasks], family.make_vec(rows)
    policies: list[tuple[str, str, Array, Array, Callable[[], Array]]] = [
        ("a random policy", "the random return", chance, random_return_errors(family, tasks), actions.__next__)
    ]
    if isinstance(environment, KnowsOptimalActions):
        policies.append(("its optimal policy", "the optimum", best, np.zeros(len(tasks)), environment.optimal_actions))
    for who, what, declared, errors, choose in policies:
        returns = _returns(environment, num_episodes, choose).reshape(len(tasks), _REPLICAS, -1)
        wrong = contradiction(who, what, returns, declared, best - chance, ids, cycle=cycle, errors=errors)
        require("declared returns", not wrong, wrong)


def _returns(environment: VectorEnvironment, num_episodes: int, choose: Callable[[], Array]) -> Array:
    """Return what every row earns in its first episodes, `e episode`."""
    environment.reset(seed=11)
    returns = np.zeros((environment.num_envs, num_episodes + 1))
    episode = np.zeros(environment.num_envs, np.int64)
    while episode.min() < num_episodes:
        _, rewards, terminations, truncations, _ = environment.step(np.asarray(choose()))
        returns[np.arange(environment.num_envs), episode] += rewards
        episode = np.minimum(episode + (np.asarray(terminations) | np.asarray(truncations)), num_episodes)
    return returns[:, :num_episodes]
