"""Encoders read images, grids of categories and structured observations as they say."""

import pytest
import torch
from cccad_core.encoders.base import measured
from cccad_core.encoders.cells import CellsSpec
from cccad_core.encoders.conv import ConvSpec
from cccad_core.encoders.dict import PartsSpec
from cccad_core.encoders.linear import ProjectionSpec
from cccad_core.encoders.table import TableSpec
from cccad_core.errors import SpaceError
from cccad_core.fitting import encoder_for
from cccad_core.laws.encoder import check_encoder
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Spaces, Tuple
from cccad_core.specs import describe, structure

WIDTH = 8
PHOTO = Box(shape=(64, 48, 3), low=0, high=255, dtype="uint8")
GRID = Box(shape=(7, 7, 3), low=0, high=10, dtype="uint8")
SPEED = Box(shape=(2,), low=-2.0, high=2.0)
MINIGRID = Dict({"image": GRID, "direction": Discrete(4)})


def bytes_of(space, *, size=5):
    return torch.randint(0, 11, (size, space.num_features), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (Discrete(3), TableSpec),
        (MultiDiscrete((3, 2)), TableSpec),
        (SPEED, ProjectionSpec),
        (Box(shape=(64, 48, 3), low=0.0, high=1.0), ProjectionSpec),
        (PHOTO, ConvSpec),
        (GRID, ProjectionSpec),
        (MINIGRID, PartsSpec),
        (Tuple((MINIGRID, PHOTO)), PartsSpec),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_space_is_read_by_the_encoder_that_is_meant_for_it(space, kind):
    assert isinstance(encoder_for(space), kind)


def test_the_channels_of_an_image_may_come_last_or_first():
    first = Box(shape=(3, 64, 48), low=0, high=255, dtype="uint8")
    torch.manual_seed(0)
    by_last = ConvSpec().build(PHOTO, WIDTH)
    by_first = ConvSpec(channels="first").build(first, WIDTH)
    by_first.load_state_dict(by_last.state_dict())
    photo = bytes_of(PHOTO)
    turned = photo.reshape(5, 64, 48, 3).movedim(-1, 1).reshape(5, -1)
    torch.testing.assert_close(by_first(turned), by_last(photo))
    gray = Box(shape=(64, 48), low=0, high=255, dtype="uint8")
    assert ConvSpec().build(gray, WIDTH)(bytes_of(gray)).shape == (5, WIDTH)


def test_images_that_are_too_small_or_no_images_are_not_taken_by_convolutions():
    taken = [ConvSpec().takes(space) for space in (PHOTO, GRID, SPEED, Discrete(3), MINIGRID)]
    assert taken == [True, False, False, False, False]


def test_a_category_is_the_same_vector_in_every_cell():
    torch.manual_seed(0)
    cells = CellsSpec(cell_width=4).build(GRID, WIDTH)
    assert cells.table.shape == (3 * 11, 4)
    values = torch.tensor([1, 10, 0]).repeat(49).to(torch.uint8)
    cell = torch.nn.functional.gelu(cells.table[1] + cells.table[11 + 10] + cells.table[22])
    torch.testing.assert_close(cells(values), cells.project(cell.repeat(49)))


def test_the_vectors_of_the_leaves_are_summed():
    space = Dict({"place": MultiDiscrete((3, 4)), "speed": SPEED})
    encoder = PartsSpec().build(space, WIDTH)
    row = torch.tensor([[2.0, 1.0, -2.0, 0.5]])
    table, linear = encoder.encoders
    torch.testing.assert_close(encoder(row), table(torch.tensor([[2, 1]])) + linear(torch.tensor([[-2.0, 0.5]])))


def test_a_leaf_may_have_an_encoder_of_its_own_or_be_ignored():
    spec = structure({"leaves": {"image": {"kind": "cells", "cell_width": 4}}, "ignored": ["direction"]}, PartsSpec)
    encoder = spec.build(MINIGRID, WIDTH)
    assert [type(each).__name__ for each in encoder.encoders] == ["Cells"]
    row = bytes_of(MINIGRID)
    other = row.clone()
    other[:, 0] = 3 - other[:, 0].clamp(max=3)
    assert torch.equal(encoder(other), encoder(row))
    assert "encoders by the path of a leaf" in describe(PartsSpec)


def test_a_leaf_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(SpaceError, match="there is no leaf 'picture' in this space; it has direction, image"):
        PartsSpec(leaves={"picture": CellsSpec()}).build(MINIGRID, WIDTH)


def test_a_leaf_whose_encoder_does_not_take_it_is_refused():
    with pytest.raises(SpaceError, match=r"the encoder 'conv' of .* does not take the leaf 'image', a box space"):
        PartsSpec(leaves={"image": ConvSpec()}).build(MINIGRID, WIDTH)
    with pytest.raises(SpaceError, match="all leaves of this space are ignored"):
        PartsSpec(ignored=("image", "direction")).build(MINIGRID, WIDTH)


def test_a_measured_encoder_scales_to_unit_deviation_and_keeps_what_it_measured():
    space = Box(shape=(3,), low=float("-inf"), high=float("inf"))
    encoder = ProjectionSpec(scaling="measured").build(space, WIDTH)
    values = torch.tensor([[1.0, 50.0, 7.0], [3.0, 150.0, 7.0]])  # the last one never changes
    assert encoder.is_measured
    encoder.measure(values)
    scaled = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(encoder(values), scaled @ encoder.project.weight.T)
    other = ProjectionSpec(scaling="measured").build(space, WIDTH)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(values), encoder(values))
    check_encoder(ProjectionSpec(scaling="measured"))


def test_a_policys_measured_encoders_are_those_of_observations_and_parts_are_shown_their_own():
    spaces = Spaces(observation=Dict({"place": Discrete(3), "speed": SPEED}), action=SPEED)
    spec = PolicySpec(encoder=PartsSpec(leaves={"speed": ProjectionSpec(scaling="measured")}), width=16)
    policy = spec.build(spaces, seed=0)
    encoders = measured(policy)
    assert encoders == [policy.layout.observation, policy.reconstruction.observation]
    encoders[0].measure(torch.tensor([[0.0, 1.0, 5.0], [2.0, 3.0, 9.0]]))
    assert policy.layout.observation.encoders[1].centre.tolist() == [2.0, 7.0]
    assert measured(PolicySpec(width=16).build(spaces, seed=0)) == []
