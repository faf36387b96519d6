"""Models of torchvision and timm: fitted to any channels and classes, or refused in one sentence."""

import builtins

import pytest
import torch
import torchvision

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError, DataError, MissingExtraError
from dlrun.models.foreign import from_timm, from_torchvision

CIFAR = DataSpec("cifar10", Task.CLASSIFICATION, Kind.IMAGE, (3, 32, 32), 10)
MNIST = DataSpec("mnist", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10)
DIGITS = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10)
PHOTOS = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (1, 96, 96), 3)
MOONS = DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2)


def download(monkeypatch, weights):
    """Let torchvision download `weights`, or fail if they are an error."""

    def load(*_, **__):
        if isinstance(weights, Exception):
            raise weights
        return weights

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)


def test_it_is_torchvisions_model():
    torch.manual_seed(0)
    ours = from_torchvision(CIFAR, name="mobilenet_v3_small")
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v3_small(num_classes=10)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_x_400mf", "googlenet"])
def test_grey_images_and_few_classes_train(name):
    torch.manual_seed(0)
    model = from_torchvision(PHOTOS, name=name)
    outputs = model(torch.randn(2, 1, 96, 96))
    assert outputs.shape == (2, 3)
    outputs.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_vision_transformer_is_made_for_the_size_of_the_images():
    with torch.device("meta"):
        model = from_torchvision(CIFAR, name="vit_b_16")
    assert model.encoder.pos_embedding.shape == (1, 1 + (32 // 16) ** 2, 768)


def test_options_reach_the_model():
    assert from_torchvision(CIFAR, name="squeezenet1_1", dropout=0.25).classifier[0].p == 0.25
    with pytest.raises(ConfigError, match=r"model.name=resnet18 does not take.*unexpected keyword argument 'dropuot'"):
        from_torchvision(CIFAR, dropuot=0.25)


def test_trying_the_shape_leaves_no_trace():
    model = from_torchvision(CIFAR, name="resnet18")
    assert model.training
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert model.bn1.num_batches_tracked == 0


def test_pretrained_weights_are_copied_but_for_another_number_of_classes(monkeypatch):
    published = torchvision.models.resnet18().state_dict()
    download(monkeypatch, published)
    torch.manual_seed(0)
    model = from_torchvision(CIFAR, name="resnet18", pretrained=True)
    torch.manual_seed(0)
    fresh = from_torchvision(CIFAR, name="resnet18")
    expected = published | {key: x for key, x in fresh.state_dict().items() if key.startswith("fc.")}
    assert all(torch.equal(x, expected[key]) for key, x in model.state_dict().items())
    thousand = DataSpec("imagenet", Task.CLASSIFICATION, Kind.IMAGE, (3, 64, 64), 1000)
    assert torch.equal(from_torchvision(thousand, pretrained=True).fc.weight, published["fc.weight"])


@pytest.mark.parametrize("channels", [1, 4])
def test_pretrained_filters_see_grey_images_as_they_would_colour_ones(monkeypatch, channels):
    theirs = torchvision.models.resnet18().eval()
    download(monkeypatch, theirs.state_dict())
    spec = DataSpec("grey", Task.CLASSIFICATION, Kind.IMAGE, (channels, 64, 64), 1000)
    ours = from_torchvision(spec, name="resnet18", pretrained=True).eval()
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        ours(x.expand(-1, channels, -1, -1)), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "classifier", "rescales"), [("googlenet", "fc", True), ("densenet121", "classifier", None)]
)
def test_pretrained_models_with_peculiar_weights(monkeypatch, name, classifier, rescales):
    """Googlenet's have auxiliary classifiers and rescale their input; densenet's are renamed on loading."""
    published = torchvision.models.get_model(name, **({"init_weights": True} if name == "googlenet" else {}))
    download(monkeypatch, published.state_dict())
    spec = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, 64, 64), 5)
    ours = from_torchvision(spec, name=name, pretrained=True)
    theirs, state = published.state_dict(), ours.state_dict()
    assert [key for key in state if state[key].shape != theirs[key].shape] == [
        f"{classifier}.weight",
        f"{classifier}.bias",
    ]
    assert all(torch.equal(x, theirs[key]) for key, x in state.items() if not key.startswith(classifier))
    assert getattr(ours, "transform_input", None) is rescales


def test_failures_to_download_are_one_sentence(monkeypatch):
    download(monkeypatch, OSError("<urlopen error [Errno -3] Temporary failure in name resolution>"))
    with pytest.raises(DataError, match=r"model.name=resnet18 cannot be had .*name resolution.*model.pretrained=false"):
        from_torchvision(CIFAR, pretrained=True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"got 'resnet51'. Did you mean 'resnet50'?"):
        from_torchvision(CIFAR, name="resnet51")
    with pytest.raises(
        ContractError, match=r"model.name=alexnet cannot read images of shape \(1, 8, 8\), as data=digits"
    ):
        from_torchvision(DIGITS, name="alexnet")
    with pytest.raises(
        ContractError, match=r"vit_b_32 cannot read.*\(1, 28, 28\), as data=mnist.*indivisible by patch"
    ):
        from_torchvision(MNIST, name="vit_b_32")
    with pytest.raises(ContractError, match="model=torchvision reads images"):
        from_torchvision(MOONS)


def test_timm_fits_its_models_to_the_data():
    pytest.importorskip("timm", reason="timm is an extra")
    torch.manual_seed(0)
    model = from_timm(MNIST, name="resnet18", drop_rate=0.1)
    assert model.drop_rate == 0.1
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    transformer = from_timm(CIFAR, name="vit_tiny_patch16_224")
    assert transformer(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_timm_refuses_in_one_sentence(monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is an extra")
    with pytest.raises(ConfigError, match=r"one of timm's 1,\d+ models.*got 'resnet51'. Did you mean 'resnet"):
        from_timm(CIFAR, name="resnet51")
    with pytest.raises(ConfigError, match=r"model=timm model.name=resnet18 does not take.*unexpected keyword"):
        from_timm(CIFAR, dropuot=0.25)
    with pytest.raises(
        ContractError, match=r"model=timm model.name=inception_v3 cannot read images of shape \(1, 8, 8\)"
    ):
        from_timm(DIGITS, name="inception_v3")
    create = timm.create_model

    def offline(name, *, pretrained, **options):
        if pretrained:
            raise OSError("no network")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(DataError, match=r"model=timm model.name=resnet18 cannot be had \(no network\)"):
        from_timm(CIFAR, pretrained=True)


def test_without_timm_the_error_says_how_to_get_it(monkeypatch):
    original = builtins.__import__

    def absent(name, *arguments, **options):
        if name == "timm":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"model=timm needs an optional package: pip install 'dlrun\[timm\]'"):
        from_timm(CIFAR)
