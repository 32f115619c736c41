"""Names in any case and the nearest of them; the parser's errors. The flags themselves are in test_util.py."""

import argparse

import pytest

from lira.flags import Parser, choice, find_name, suggest
from tests.helpers.errors import input_error_line

NAMES = ("ResNet18", "ResNet34", "ConvNet", "MSGD")
LISTED = "choose from ResNet18, ResNet34, ConvNet, MSGD"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *[("ResNet18", "ResNet18"), ("resnet18", "ResNet18"), ("CONVNET", "ConvNet"), ("msgd", "MSGD")],
        *[("ResNet", None), ("ResNet181", None), (" MSGD", None), ("", None)],
    ],
)
def test_a_name_is_found_in_any_case_and_only_as_a_whole(text, name):
    assert find_name(text, NAMES) == name
    assert find_name(text, iter(NAMES)) == name


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        *[("ResNet19", "ResNet18"), ("RESNET43", "ResNet34"), ("conv-net", "ConvNet"), ("sgd", "MSGD")],
        *[("adam", None), ("", None), ("a network of my own", None)],
    ],
)
def test_the_nearest_name_is_suggested_as_it_is_spelled_if_one_is_near(text, nearest):
    assert suggest(text, NAMES) == (f", did you mean {nearest}?" if nearest else "")
    assert suggest(text, []) == ""


def test_a_choice_is_one_of_its_names():
    parse = choice(NAMES)
    assert [parse(text) for text in ("ResNet18", "resnet34", "ConvNET")] == ["ResNet18", "ResNet34", "ConvNet"]
    for text, end in (("Resnet19", f", did you mean ResNet18? {LISTED}"), ("adam", f", {LISTED}")):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            parse(text)
        assert str(caught.value) == f"invalid choice: {text!r}{end}"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--epoch", "3"], "unrecognized arguments: --epoch 3, did you mean --epochs? (see --help)"),
        (["--Epochs=1000000000"], "unrecognized arguments: --Epochs=1000000000, did you mean --epochs? (see --help)"),
        (["-n", "3", "--magic"], "unrecognized arguments: --magic (see --help)"),
        (["stray", "--quite"], "unrecognized arguments: stray --quite (see --help)"),
        (["--epochs", "many"], "argument -n/--epochs: invalid int value: 'many' (see --help)"),
        (["--epochs"], "argument -n/--epochs: expected one argument (see --help)"),
        (["--net=--"], "argument --net: expected one argument (see --help)"),
        (["--net", "conv"], f"argument --net: invalid choice: 'conv', did you mean ConvNet? {LISTED} (see --help)"),
    ],
)
def test_the_parser_raises_one_line_with_the_nearest_flag(argv, line):
    parser = Parser(allow_abbrev=False)
    parser.add_argument("-n", "--epochs", type=int)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--net", type=choice(NAMES))
    assert vars(parser.parse_args(["-n", "3", "--net=convnet"])) == dict(epochs=3, quiet=False, net="ConvNet")
    assert input_error_line(parser.parse_args, argv) == line
