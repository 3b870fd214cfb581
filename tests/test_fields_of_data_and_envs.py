"""No field of a spec in cccad-data or cccad-envs is mute: each has the help that `cccad describe` shows."""

from importlib.metadata import entry_points

import attrs
import pytest
from cccad_data import SamplerSpec
from cccad_data.toys import CorridorSpec, LeversSpec, TrackSpec

SPECS = {
    f"{group.removeprefix('cccad.')} {point.name}": point.load()
    for group in ("cccad.env", "cccad.source", "cccad.executor")
    for point in entry_points(group=group)
} | {spec.__name__: spec for spec in (SamplerSpec, CorridorSpec, TrackSpec, LeversSpec)}


def mute_fields(spec, path=""):
    for field in attrs.fields(attrs.resolve_types(spec)):
        if not str(field.metadata.get("help", "")).strip():
            yield path + field.name
        if attrs.has(field.type):
            yield from mute_fields(field.type, f"{path}{field.name}.")


@pytest.mark.parametrize("name", SPECS)
def test_every_field_has_help(name):
    assert list(mute_fields(SPECS[name])) == []
