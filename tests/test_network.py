"""The table of networks: output shapes, image sizes, parameters, and the user's own factory."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lira.data.store import ImageStore
from lira.errors import InputError
from network import NETWORKS, build, network_name
from tests.helpers import networks
from tests.helpers.tiny_images import images

SIZES = [(32, 32), (28, 28), (16, 16), (8, 8), (4, 4), (17, 40), (64, 48)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (4, 7)), (1, (8, 10)), (3, (64, 64))])
def test_every_network_accepts_small_images_of_any_size(name, channels, size):
    model = build(name, num_classes=7, in_channels=channels, size=size)
    assert model.training
    assert model(torch.zeros(3, channels, *size)).shape == (3, 7)


@pytest.mark.parametrize("size", SIZES)
def test_convnet_accepts_every_size(size):
    model = build("ConvNet", num_classes=5, in_channels=3, size=size)
    assert model(torch.randn(2, 3, *size)).shape == (2, 5)


@pytest.mark.parametrize(
    ("size", "channels", "classes", "parameters"),
    [
        ((32, 32), 3, 10, (75 + 1) * 64 + (1600 + 1) * 64 + (64 * 25 + 1) * 512 + 513 * 10),
        ((28, 28), 1, 10, (25 + 1) * 64 + (1600 + 1) * 64 + (64 * 16 + 1) * 512 + 513 * 10),
        ((16, 16), 1, 2, (25 + 1) * 64 + (1600 + 1) * 64 + (64 * 1 + 1) * 512 + 513 * 2),
    ],
)
def test_convnet_has_the_expected_number_of_parameters(size, channels, classes, parameters):
    model = build("ConvNet", num_classes=classes, in_channels=channels, size=size)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_convnet_equals_the_usual_order_of_relu_and_pooling():
    """With ReLU before pooling: the same values and the same gradients."""
    model = build("ConvNet", num_classes=10, in_channels=3, size=(32, 32))
    w = list(model.parameters())
    x = torch.randn(2, 3, 32, 32)
    y = F.max_pool2d(F.relu(F.conv2d(x, w[0], w[1])), 2)
    y = F.max_pool2d(F.relu(F.conv2d(y, w[2], w[3])), 2)
    assert y.shape == (2, 64, 5, 5)
    y = F.linear(F.relu(F.linear(y.flatten(1), w[4], w[5])), w[6], w[7])
    torch.testing.assert_close(model(x), y)
    gradients = [torch.autograd.grad(logits.logsumexp(1).sum(), w) for logits in (model(x), y)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def test_an_image_too_small_for_the_stages_is_padded_with_zeros():
    model = build("ConvNet", num_classes=3, in_channels=1, size=(8, 10))
    padded = model[0](torch.ones(1, 1, 8, 10))
    assert padded.shape == (1, 1, 16, 16)
    assert padded.sum() == 80
    assert (padded[0, 0, 4:12, 3:13] == 1).all()


@pytest.mark.parametrize("name", ["ResNet18", "ConvNet", "tests.helpers.networks:mlp"])
def test_the_global_generator_determines_the_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build(name, num_classes=3, in_channels=1, size=(8, 8)).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_lazy_layers_have_their_shapes_when_a_network_is_built():
    model = build("tests.helpers.networks:lazy", num_classes=3, in_channels=2, size=(8, 6))
    assert model[1].weight.shape == (3, 2 * 8 * 6)


def test_a_factory_may_take_the_normalisation_of_the_images():
    """So that a network trained on images prepared otherwise gets them as it did."""
    data = images(size=(14, 14))
    how = dict(num_classes=4, in_channels=3, size=data.size, mean=data.mean, std=data.std)
    model = build("tests.helpers.networks:prepared", **how)
    assert model.state_dict().keys() == {f"net.{key}" for key in networks.mlp(4, 3).state_dict()}
    x = ImageStore(data, flip=False, device=torch.device("cpu")).unaugmented(torch.arange(5))
    expected = model.net((data.x_train[:5].float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ResNet", "must be one of ConvNet, ResNet18, ResNet34, ResNet50, WRN28-2, or module:factory"),
        ("ConvNot", r"got 'ConvNot', did you mean ConvNet\?$"),
        ("no_such_module:make", "cannot find factory 'make' in 'no_such_module': ModuleNotFoundError"),
        (":make", "--network :make: cannot find factory 'make' in ''"),
        (".networks:mlp", "cannot find factory 'mlp' in '.networks'"),
        ("tests.helpers.networks:nothing", "cannot find factory 'nothing' in 'tests.helpers.networks': AttributeError"),
        ("tests.helpers.networks:fails", r"fails on images of 3x8x8: RuntimeError: first line$"),
        ("tests.helpers.scripts:FLAGS", "network tests.helpers.scripts:FLAGS fails on images of 3x8x8: TypeError"),
        ("tests.helpers.networks:no_module", "fails on images of 3x8x8: AttributeError"),
        ("tests.helpers.networks:one_logit_too_many", r"logits \(2, 4\) for 2 images, got \(2, 5\)"),
        ("tests.helpers.networks:other_shape_in_training", "in training mode differ in type or shape from those in"),
        ("tests.helpers.networks:wrong_shape", r"logits \(2, 4\) for 2 images, got \(1, 2, 3\)"),
        ("tests.helpers.networks:softmax", "returns probabilities and no logits: return the inputs of its softmax"),
        ("tests.helpers.networks:random_in_eval_mode", "is random in eval mode: the same images get other logits"),
        ("tests.helpers.networks:mixing", "in eval mode its output for an image depends on the other images"),
        ("tests.helpers.networks:mixing_later_images", "in eval mode its output for an image depends on the other"),
        ("tests.helpers.networks:squeezing", r"for one image must return logits \(1, 4\), got \(4,\)"),
    ],
)
def test_a_network_that_cannot_be_built_is_rejected(name, words):
    with pytest.raises(InputError, match=words):
        build(name, num_classes=4, in_channels=3, size=(8, 8))


@pytest.mark.parametrize("network", ["tiny", "normed", "lazy"])
def test_the_queries_of_a_new_network_change_neither_its_statistics_nor_the_next_random_number(network):
    factory = getattr(networks, network)
    torch.manual_seed(3)
    expected = factory(num_classes=4, in_channels=3).eval()
    expected(torch.zeros(2, 3, 14, 14))
    next_number = torch.rand(1)
    torch.manual_seed(3)
    model = build(f"tests.helpers.networks:{network}", num_classes=4, in_channels=3, size=(14, 14))
    assert torch.rand(1) == next_number
    assert networks.equal_weights(expected, model)


@pytest.mark.parametrize("n_layers", [1, 30])
def test_a_network_whose_logits_hardly_depend_on_the_image_is_not_taken_for_a_random_one(n_layers, monkeypatch):
    """At 30 layers, biases are 100 million times what is left of an image: all else is rounding."""

    def deep(num_classes, in_channels):
        layers = [layer for _ in range(n_layers) for layer in (nn.Linear(64, 64), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(64), *layers, nn.Linear(64, num_classes))

    monkeypatch.setattr(networks, "mlp", deep)
    for seed in range(5):
        torch.manual_seed(seed)
        build("tests.helpers.networks:mlp", num_classes=4, in_channels=3, size=(8, 8))


def test_names_match_in_any_case_and_are_checked_without_importing():
    assert [network_name(name) for name in ("ResNet50", "resnet50", "wrn28-2")] == ["ResNet50", "ResNet50", "WRN28-2"]
    assert network_name("no_such_module:Make") == "no_such_module:Make"
    for name, end in (("VGG", ""), ("resnt34", r", did you mean ResNet34\?")):
        with pytest.raises(InputError, match=f"got '{name}'{end}$"):
            network_name(name)


@pytest.mark.parametrize("name", ["util.py", "lira/__init__.py", "random.py"])
def test_a_module_that_hides_the_user_s_is_named(name, tmp_path, monkeypatch):
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("from tests.helpers.networks import mlp as parse_args\n")
    monkeypatch.chdir(tmp_path)
    module = name.partition("/")[0].removesuffix(".py")
    with pytest.raises(InputError, match=rf"/{name} is found in place of your {name}: give yours another name$"):
        build(f"{module}:parse_args", num_classes=4, in_channels=3, size=(8, 8))


def test_a_factory_in_the_current_folder_is_found_and_its_syntax_error_named(tmp_path, monkeypatch):
    (tmp_path / "my_network.py").write_text("from tests.helpers.networks import mlp as make\n")
    (tmp_path / "syntax_error.py").write_text("def make(:\n")
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    assert build("my_network:make", num_classes=4, in_channels=3, size=(8, 8)) is not None
    for module, error in (("syntax_error", "SyntaxError"), ("a_script", "SystemExit: 0")):
        with pytest.raises(InputError, match=f"cannot find factory 'make' in '{module}': {error}"):
            build(f"{module}:make", num_classes=4, in_channels=3, size=(8, 8))
