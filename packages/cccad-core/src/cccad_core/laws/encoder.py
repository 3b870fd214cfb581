"""The laws of an encoder: every value for itself, different values apart, and every weight learned."""

import torch
from torch import Tensor

from cccad_core.encoders.base import Encoder, EncoderSpec, Measures
from cccad_core.laws.law import TOLERANCE, require, same
from cccad_core.laws.noise import WIDTH, random_batch
from cccad_core.laws.policy import check_policy
from cccad_core.laws.weights import built, check_kept, check_learned, check_seeded_and_kept, taken
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Space, Spaces, Tuple, ends_of

INFINITE = float("inf")
EXAMPLES: tuple[Space, ...] = (
    Discrete(5),
    MultiDiscrete((3, 4)),
    Box(shape=(4,), low=(0.0, -4.0, -INFINITE, 2.0), high=(10.0, 4.0, INFINITE, 2.0)),  # the last one is constant
    Box(shape=(9, 8, 3), low=0, high=255, dtype="uint8"),
    Dict({"cell": Tuple((Discrete(3), Discrete(2))), "speed": Box(shape=(2,), low=-1.0, high=1.0)}),
)
APART = 1e-6  # vectors that lie as close are the same
NUM_RAISED = 16  # of a space of many features, each alone

SMALL = CompressedSpec(num_heads=2, num_layers=1)


def check_encoder(spec: EncoderSpec, *, space: Space | None = None) -> None:
    """Check every law for an encoder *spec* in *space*, by default in those of some examples that it takes.

    The last law is that of a whole policy that observes with it. Raises LawBroken.
    """
    spaces = taken("an encoder", spec, EXAMPLES if space is None else (space,))
    for each in spaces:
        _check_alone(spec, each)
    observed = Spaces(observation=spaces[0], action=Discrete(3))
    check_policy(PolicySpec(encoder=spec, memory=SMALL, width=WIDTH), spaces=observed)


def _check_alone(spec: EncoderSpec, space: Space) -> None:
    values = values_of(space)
    encoder = built(spec, space, WIDTH, lambda encoder: encoder(values.clone()))
    what = f"build() returns {type(encoder).__name__}, which is no Encoder"
    require("an encoder is built", isinstance(encoder, Encoder), what)
    with torch.no_grad():
        _check_vectors(encoder.eval(), values, space)
    if isinstance(encoder, Measures) and encoder.is_measured:
        encoder.measure(values.flatten(0, 1))
        with torch.no_grad():
            _check_vectors(encoder, values, space)
        check_kept(encoder, lambda: spec.build(space, WIDTH), lambda encoder: encoder(values))
    check_seeded_and_kept(lambda: spec.build(space, WIDTH), lambda encoder: encoder(values))
    check_learned(encoder, encoder(values).square().mean())


def _check_vectors(encoder: Encoder, values: Tensor, space: Space) -> None:
    """Vectors are of the declared size and finite, and each depends on its own value alone."""
    kept, vectors = values.clone(), encoder(values)
    require("what is read stays as it is", torch.equal(values, kept), "forward() changes the values that it reads")
    shape, wanted = tuple(vectors.shape), (*values.shape[:2], WIDTH)
    require("declared size", shape == wanted, f"values of shape {tuple(values.shape)} become {shape}, not {wanted}")
    require("finite values", bool(vectors.isfinite().all()), f"a {space.kind} value becomes no finite number")
    same("a function of the value", encoder(values), vectors, "one batch, encoded twice,", 0)
    law, rounding = "every value for itself", TOLERANCE * max(1.0, float(vectors.abs().max()))
    same(law, encoder(values[:1]), vectors[:1], "a row in a batch and alone", rounding)
    same(law, encoder(values[:, 1:2]), vectors[:, 1:2], "a decision in a stretch and alone", rounding)
    same(law, encoder(values[:, 1]), vectors[:, 1], "decisions with an axis of time and without", rounding)
    _check_apart(values, vectors)


def values_of(space: Space) -> Tensor:
    """Return values of *space*, `3 t o`: noise, its two corners, and the lowest one with a single feature raised."""
    noise = random_batch(Spaces(observation=space, action=Discrete(2)), size=3, length=40, seed=0).observations
    low, high = (torch.tensor(end).clamp(-1e6, 1e6) for end in ends_of(space))
    count = space.num_features
    raised = low.repeat(min(count, NUM_RAISED), 1)
    for row, feature in enumerate(torch.linspace(0, count - 1, len(raised)).round().long()):
        raised[row, feature] = high[feature]
    edges = torch.cat([torch.stack([low, high]), raised])
    return torch.cat([noise, edges.to(noise.dtype).expand(3, -1, -1)], 1)


def _check_apart(values: Tensor, vectors: Tensor) -> None:
    """Different values have different vectors."""
    distinct, places = values.flatten(0, 1).unique(dim=0, return_inverse=True)
    flat = vectors.flatten(0, 1)
    chosen = torch.stack([flat[places == index][0] for index in range(len(distinct))])
    gaps = (chosen[:, None] - chosen).abs().amax(-1) + torch.eye(len(chosen))
    pair = torch.nonzero(gaps <= APART).tolist()[:1]
    what = "".join(f"{distinct[i].tolist()} and {distinct[j].tolist()} become the same vector" for i, j in pair)
    require("different values, different vectors", not pair, f"{what:.200}")
