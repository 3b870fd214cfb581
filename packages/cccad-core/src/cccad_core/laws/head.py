"""The laws of a head: actions that lie in their space, drawn as often as their likelihood says, and learned from."""

import itertools

import torch
from torch import Tensor

from cccad_core.heads.base import ActionHead, HeadSpec
from cccad_core.laws.law import require, same
from cccad_core.laws.noise import WIDTH, random_batch
from cccad_core.laws.policy import check_policy
from cccad_core.laws.weights import built, check_learned, check_seeded_and_kept, taken
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.policy import PolicySpec
from cccad_core.spaces import (
    Box,
    Dict,
    Discrete,
    MultiDiscrete,
    Space,
    Spaces,
    Tuple,
    dtype_of,
    ends_of,
    leaves_of,
)

EXAMPLES: tuple[Space, ...] = (
    Discrete(4),
    MultiDiscrete((3, 2)),
    Box(shape=(1,), low=-1.0, high=3.0),
    Box(shape=(2,), low=(-1.0, float("-inf")), high=(1.0, float("inf"))),
    Dict({"move": Tuple((Discrete(3), MultiDiscrete((2, 2)))), "push": Box(shape=(1,), low=-1.0, high=1.0)}),
)
MEASURES = {"accuracy": 1.0, "squared_error": 0.0}
"""What is measured where the mode is the action."""
NUM_DRAWS, NUM_CELLS, MOST_REAL, FAR = 20_000, 160_000, 2, 20.0
PROBABILITY_TOLERANCE = 0.02  # five deviations of a share of 20,000 draws
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
NUM_UPDATES = 30

SMALL = CompressedSpec(num_heads=2, num_layers=1)


def check_head(spec: HeadSpec, *, space: Space | None = None) -> None:
    """Check every law for a head *spec* in *space*, by default in those of some examples that it takes.

    The last law is that of a whole policy that acts by it. Raises LawBroken.
    """
    spaces = taken("a head", spec, EXAMPLES if space is None else (space,))
    for each in spaces:
        _check_in(spec, each)
    acting = Spaces(observation=Discrete(5), action=spaces[0])
    check_policy(PolicySpec(head=spec, memory=SMALL, width=WIDTH), spaces=acting)


def _check_in(spec: HeadSpec, space: Space) -> None:
    head = built(spec, space, WIDTH, lambda head: head(_hidden()))
    require("a head is built", isinstance(head, ActionHead), f"build() returns {type(head).__name__}, no ActionHead")
    measure = getattr(head, "measure", None)
    require("a head is built", measure in MEASURES, f"its measure is {measure!r}, none of {', '.join(MEASURES)}")
    with torch.no_grad():
        _check_answers(head.eval(), space)
        _check_draws(head, space)
        _check_likelihood(head, space)
    check_seeded_and_kept(lambda: spec.build(space, WIDTH), lambda head: head(_hidden()))
    _check_learning(head, space)


def _hidden(size: int = 3, length: int = 5) -> Tensor:
    """Return small noise, `b t d`: what it becomes is neither certain nor at a bound."""
    return 0.3 * torch.randn(size, length, WIDTH, generator=torch.Generator().manual_seed(1))


def _actions(space: Space, size: int = 3, length: int = 5) -> Tensor:
    return random_batch(Spaces(observation=Discrete(2), action=space), size=size, length=length, seed=0).actions


def _check_answers(head: ActionHead, space: Space) -> None:
    """Parameters, nats and measures are one for each decision, and no decision depends on another."""
    hidden, actions = _hidden(), _actions(space)
    parameters = head(hidden)
    shape = tuple(parameters.shape)
    require("declared size", len(shape) == 3 and shape[:2] == (3, 5), f"forward() gives {shape}, not (3, 5, a)")
    same("every decision for itself", head(hidden[:1]), parameters[:1], "parameters of a row in a batch and alone")
    what = "parameters of a decision in a stretch and alone"
    same("every decision for itself", head(hidden[:, 1:2]), parameters[:, 1:2], what)
    for name in ("nats", "measured"):
        answer, before = getattr(head, name), (parameters.clone(), actions.clone())
        values = answer(parameters, actions)
        stays = torch.equal(parameters, before[0]) and torch.equal(actions, before[1])
        require("what is asked stays as it is", stays, f"{name}() changes what it is asked about")
        require("declared size", values.shape == (3, 5), f"{name}() gives {tuple(values.shape)}, not (3, 5)")
        require("finite values", bool(values.isfinite().all()), f"{name}() gives values that are no finite numbers")
        alone = answer(parameters[1:2], actions[1:2])
        same("every decision for itself", alone, values[1:2], f"{name}() of a row in a batch and alone")


def _check_draws(head: ActionHead, space: Space) -> None:
    """Draws lie in the space and depend on the generator alone; a greedy one needs none and is the mode."""
    law, parameters = "the generator alone decides", head(_hidden(size=64, length=1))[:, 0]
    torch.manual_seed(0)
    draws = [head.draw(parameters, torch.Generator().manual_seed(seed), greedy=False) for seed in (0, 0, 1)]
    shape, wanted = tuple(draws[0].shape), (64,) if isinstance(space, Discrete) else (64, space.num_features)
    require("declared size", shape == wanted, f"draw() gives {shape}, not {wanted}")
    same(law, draws[1], draws[0], "two draws with one seed", 0)
    require(law, not torch.equal(draws[0], draws[2]), "two seeds draw the same")
    best = head.draw(parameters, None, greedy=True)
    same("a greedy draw is the mode", head.draw(parameters, None, greedy=True), best, "two greedy draws", 0)
    low, high = (torch.tensor(end) for end in ends_of(space))
    for drawn in (*draws, best):
        is_inside = bool(((drawn >= low) & (drawn <= high)).all())
        require("draws lie in the space", is_inside, f"from {drawn.min()} to {drawn.max()} in {space!r:.80}")
    measured = head.measured(parameters[:, None], best[:, None])
    what = f"the {head.measure} of greedy draws and the best one"
    same("a greedy draw is the mode", measured, torch.full_like(measured, MEASURES[head.measure]), what)
    if dtype_of(space) == "int64" and (grid := _grid(space)) is not None:
        listed = _listed(grid[0], space)
        nats = torch.stack([head.nats(parameters[:, None], action.expand(64, 1, *action.shape)) for action in listed])
        gap = head.nats(parameters[:, None], best[:, None]) - nats.amin(0)
        require("a greedy draw is the mode", float(gap.max()) <= PROBABILITY_TOLERANCE, "others are likelier than it")


def _grid(space: Space) -> tuple[Tensor, float] | None:
    """Return actions `n a` that cover *space*, and how much of it each stands for; None where that is no short list.

    A choice stands for itself, a cell for its size. What lies beyond a single bound is all drawn at that bound.
    """
    low, high = ends_of(space)
    is_real = [isinstance(leaf.space, Box) for leaf in leaves_of(space) for _ in range(leaf.space.num_features)]
    num_real, num_choices = sum(is_real), 1
    for end, real in zip(high, is_real, strict=True):
        num_choices *= 1 if real else int(end) + 1
    if num_real > MOST_REAL or num_choices > NUM_CELLS:
        return None
    num_cells = round((NUM_CELLS / num_choices) ** (1 / max(num_real, 1)))
    axes, size = [], 1.0
    for a, b, real in zip(low, high, is_real, strict=True):
        if real and (a == b or (a > -FAR) != (b < FAR)):
            return None
        least, width = (max(a, -FAR), (min(b, FAR) - max(a, -FAR)) / num_cells) if real else (-0.5, 1.0)
        axes.append(least + width * (torch.arange(num_cells if real else int(b) + 1) + 0.5))
        size *= width
    actions = torch.cartesian_prod(*axes).reshape(-1, space.num_features)
    return actions.to(getattr(torch, dtype_of(space))), size


def _listed(actions: Tensor, space: Space) -> Tensor:
    """Return *actions*, `n a`, as a head takes them: one choice has no axis of features."""
    return actions[:, 0] if isinstance(space, Discrete) else actions


def _check_likelihood(head: ActionHead, space: Space) -> None:
    """Likelihoods sum to one, and actions are drawn as often as they say."""
    if (grid := _grid(space)) is None:
        return
    (actions, size), parameters = grid, head(_hidden(size=1, length=1))
    nats = head.nats(parameters.expand(1, len(actions), -1), _listed(actions, space)[None])[0]
    shares = nats.double().neg().exp() * size
    total, law = float(shares.sum()), "likelihoods sum to one"
    require(law, abs(total - 1) <= PROBABILITY_TOLERANCE, f"over all of {space!r:.80} they sum to {total:.3f}")
    drawn = head.draw(parameters[0].expand(NUM_DRAWS, -1), torch.Generator().manual_seed(0), greedy=False)
    drawn = drawn.reshape(NUM_DRAWS, -1).double()
    for feature, level in itertools.product(range(drawn.shape[1]), LEVELS):
        threshold = drawn[:, feature].quantile(level)
        often = float((drawn[:, feature] <= threshold).double().mean())
        likely = float(shares[actions[:, feature] <= threshold].sum())
        what = f"{often:.3f} of the draws are at most {float(threshold):.2f}, the likelihoods say {likely:.3f}"
        require("actions are drawn as often as is said", abs(often - likely) <= PROBABILITY_TOLERANCE, what)


def _check_learning(head: ActionHead, space: Space) -> None:
    """Gradients reach every weight, and following them makes an action likelier."""
    hidden, action = _hidden(size=1, length=1), _actions(space, size=1, length=1)
    check_learned(head, head.nats(head(_hidden()), _actions(space)).mean())
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    history: list[float] = []
    for _ in range(NUM_UPDATES):
        optimizer.zero_grad()
        nats = head.nats(head(hidden), action).mean()
        nats.backward()
        history.append(float(nats.detach()))
        optimizer.step()
    what = f"its nats go from {history[0]:.3f} to {history[-1]:.3f} in {NUM_UPDATES} updates"
    require("an action that is imitated becomes likelier", history[-1] < history[0], what)
