"""Every field of every spec, of whichever package, says what it is for, and `cccad describe` shows it."""

import typing

import attrs
import pytest
from cccad_core.registry import KINDS, lookup, names
from cccad_core.specs import describe
from cccad_train.experiment import ExperimentSpec


def specs_of(spec, measured=None):
    """Return *spec* and every spec class that its fields hold."""
    measured = {} if measured is None else measured
    if attrs.has(spec) and spec not in measured:
        measured[spec] = None
        for annotation in typing.get_type_hints(spec).values():
            for inner in (annotation, *typing.get_args(annotation)):
                if isinstance(inner, type):
                    specs_of(inner, measured)
    return list(measured)


SPECS = dict.fromkeys(specs_of(ExperimentSpec))
SPECS |= dict.fromkeys(spec for kind in KINDS for name in names(kind) for spec in specs_of(lookup(kind, name)))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_no_field_is_without_help(spec):
    assert [field.name for field in attrs.fields(spec) if not field.metadata.get("help")] == []


def test_what_a_field_says_is_shown():
    assert "attention heads of the fold" in describe(lookup("compressor", "gated-query"))
