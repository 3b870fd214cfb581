"""The packaged compressor obeys every law; the distribution must be installed."""

import pytest
from cccad_core.laws.compressor import check_compressor
from cccad_core.registry import lookup
from cccad_plugin_gru.conv_gru import ConvGruSpec


def test_it_obeys_the_laws():
    assert check_compressor(ConvGruSpec(num_latents=2)) is None


def test_it_is_known_by_its_name():
    assert lookup("compressor", "conv-gru") is ConvGruSpec


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="'kernel_size' must be odd"):
        ConvGruSpec(kernel_size=4)
