"""digest() depends on names, types, shapes and values, and on nothing else."""

import numpy as np
import torch

from lira.storage.checksums import digest


def test_equal_content_has_one_digest():
    contents = [
        {"a": torch.arange(6.0).reshape(2, 3), "b": [1, "x"]},
        {"b": (1, "x"), "a": torch.arange(6.0).reshape(2, 3)},
        {"a": torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]).T, "b": [1, "x"]},  # another layout in memory
    ]
    assert len(set(map(digest, contents))) == 1
    assert digest(np.arange(6.0)[::2]) == digest(np.array([0.0, 2.0, 4.0]))


def test_different_content_has_different_digests():
    values = torch.arange(6.0)
    weights = [values, values.reshape(2, 3), values.double(), values + 1e-6, values.bfloat16(), 1, 1.0, "1"]
    contents = [{"a": value} for value in weights]
    contents += [{"b": values}, {"a": values, "b": torch.zeros(0)}, [["a"], []], [[], ["a"]]]
    assert len(set(map(digest, contents))) == len(contents)
