"""Packed vectors and the leaves of a full pass."""

import numpy as np
import pytest

from saem.statistics import Packed, leaf_size


def test_views_write_through():
    spec = Packed(a=(), b=(2, 3), c=(0,), d=(4,))
    vector = np.arange(11.0)
    view = spec.view(vector)
    assert spec.size == 11
    assert {name: block.shape for name, block in view.items()} == spec.shapes
    view["b"][1, 2] = -1.0
    view["a"][...] = -2.0
    np.testing.assert_array_equal(vector, [-2, 1, 2, 3, 4, 5, -1, 7, 8, 9, 10])


def test_packing_is_the_inverse_of_viewing():
    spec = Packed(a=(), b=(2, 2))
    vector = np.arange(5.0)
    np.testing.assert_array_equal(spec.pack(spec.view(vector)), vector)
    assert list(spec.labels()) == ["a", "b[0,0]", "b[0,1]", "b[1,0]", "b[1,1]"]


def test_packing_checks_names_and_shapes():
    spec = Packed(a=(), b=(2,))
    with pytest.raises(KeyError, match="expected"):
        spec.pack({"a": 1.0})
    with pytest.raises(ValueError, match="block 'b' has shape"):
        spec.pack({"a": 1.0, "b": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("n", [1, 7, 8, 9, 4096, 4097, 10**6])
def test_leaves_are_few_and_depend_on_n_only(n):
    leaf = leaf_size(n)
    assert leaf >= 8
    assert -(-n // leaf) <= 512
    assert leaf == leaf_size(n)
