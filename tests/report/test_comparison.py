"""The labels of compared runs."""

from pathlib import Path

import pytest

from lira.report.comparison import labels
from lira.report.results import Results

NAME = "cifar10_ConvNet_sgd_lr{}_b256_e100_bf16_{}exp0"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([NAME.format("0.05", ""), NAME.format("1", "sigma1_C0.1_")], ["A: lr0.05", "B: lr1 sigma1 C0.1"]),
        (["a_x", "a_x_noaug", "a_y_noaug"], ["A: x", "B: x noaug", "C: y noaug"]),  # noaug: not in all of them
        (["same", "same"], ["A", "B"]),
        ([f"{'a' * 17}_{'b' * 16}", f"{'c' * 17}_{'d' * 17}"], [f"A: {'a' * 17}", f"B: {'c' * 17}"]),
        (  # too long: kinds of parts that tell no two runs apart are left out, in all; those of the privacy last
            [
                "cifar10-jpeg_lr0.05_e20_noaug_n5000_exp0",
                "cifar10-jpeg_lr0.05_e20_noaug_n5000_exp1",
                "digits_lr1_e15_eps8_C0.1_exp0",
            ],
            [
                "A: cifar10-jpeg lr0.05 e20 noaug exp0",
                "B: cifar10-jpeg lr0.05 e20 noaug exp1",
                "C: digits lr1 e15 eps8 C0.1 exp0",
            ],
        ),
        (["a", "b" * 35], ["A: a", "B: …"]),
    ],
)
def test_a_label_names_the_parts_that_differ(names, expected):
    assert labels([Results(Path("result") / name, {}) for name in names]) == expected


def test_the_letters_of_many_runs_end_with_numbers():
    assert labels([Results(Path("result/same"), {})] * 28)[24:] == ["Y", "Z", "run 27", "run 28"]
