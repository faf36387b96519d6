"""DenseNets: torchvision's outputs with its weights, the paper's parameter counts, and memory saved for free."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.layers.recompute import recomputed
from dlrun.models.densenet import densenet

CONF = Path(__file__).parents[2] / "conf" / "model"
IMAGENET = DataSpec("imagenet", Task.CLASSIFICATION, Kind.IMAGE, (3, 224, 224), 1000)
CIFAR = DataSpec("cifar10", Task.CLASSIFICATION, Kind.IMAGE, (3, 32, 32), 10)
DIGITS = DataSpec("digits", Task.CLASSIFICATION, Kind.IMAGE, (1, 8, 8), 10)
TINY = {"blocks": [2, 3], "growth_rate": 4}


def options(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert settings.pop("_target_") == "dlrun.models.densenet.densenet"
    return settings


@pytest.mark.parametrize("depth", [121, 201])
def test_as_many_parameters_as_torchvision(depth):
    with torch.device("meta"):
        ours = densenet(IMAGENET, **options(f"densenet{depth}"))
        theirs = torchvision.models.get_model(f"densenet{depth}", weights=None)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize(
    ("spec", "name", "count"),
    [
        (IMAGENET, "densenet121", 7_978_856),
        (CIFAR, "densenet40", 1_019_722),  # 1.0 M, table 2 of the paper
        (CIFAR, "densenet_bc100", 769_162),  # .8 M
    ],
)
def test_the_published_parameter_counts(spec, name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in densenet(spec, **options(name)).parameters()) == count


def test_torchvisions_outputs_with_torchvisions_weights():
    torch.manual_seed(0)
    theirs = torchvision.models.densenet121(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.device("meta"):
        ours = densenet(IMAGENET, **options("densenet121")).to_empty(device="cpu").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = theirs(x), ours(x)
    torch.testing.assert_close(outputs / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_saving_memory_changes_neither_gradients_nor_statistics(bottleneck, dropout):
    results = []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        model = densenet(CIFAR, **TINY, bottleneck=bottleneck, dropout=dropout, memory_efficient=memory_efficient)
        x = torch.randn(4, 3, 32, 32, requires_grad=True)
        outputs = model(x)
        outputs.square().sum().backward()
        results.append([outputs, x.grad, *(p.grad for p in model.parameters()), *model.buffers()])
    assert all(torch.equal(plain, saving) for plain, saving in zip(*results, strict=True))


def test_saving_memory_keeps_fewer_numbers_until_the_backward_pass():
    kept = {}
    for memory_efficient in (False, True):
        model = densenet(CIFAR, blocks=[12], growth_rate=4, memory_efficient=memory_efficient)
        seen = {}

        def pack(tensor, seen=seen):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = model(torch.randn(2, 3, 32, 32))
        kept[memory_efficient] = sum(seen.values())
        del outputs
    assert kept[True] < 0.6 * kept[False]


def test_every_layer_sees_all_layers_before_it():
    torch.manual_seed(0)
    model = densenet(CIFAR, blocks=[3], growth_rate=4, bottleneck=False).eval()
    x = torch.randn(2, 3, 32, 32)
    maps = [model.stem(x)]
    for layer in model.block1:
        h = torch.relu(layer.first.norm1(torch.cat(maps, 1)))
        maps.append(torch.nn.functional.conv2d(h, layer.first.conv1.weight, padding=1))
    features = torch.relu(model.norm(torch.cat(maps, 1))).mean((2, 3))
    assert features.shape[1] == 8 + 3 * 4
    torch.testing.assert_close(model(x), model.output(features))


@pytest.mark.parametrize("theta", [0.5, 0.3, 1.0])
def test_a_transition_keeps_theta_of_the_channels_and_halves_the_image(theta):
    transition = densenet(CIFAR, **TINY, compression=theta).transition1
    assert transition(torch.randn(1, 16, 9, 8)).shape == (1, int(theta * 16), 4, 4)


def test_dropout_follows_every_convolution_but_the_first():
    model = densenet(CIFAR, **TINY, dropout=0.2)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == convolutions - 1


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "instance", "rms", "weight"])
def test_every_norm_and_no_idle_bias(norm):
    torch.manual_seed(0)
    model = densenet(CIFAR, **TINY, norm=norm, activation="silu")
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all((conv.bias is None) == (norm in ("batch", "instance")) for conv in convolutions)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters())


def test_what_does_not_fit_is_refused():
    assert densenet(DIGITS, blocks=[1] * 4, growth_rate=2)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ContractError, match=r"between 5 blocks, and nothing is left.*data=digits.*\(1, 8, 8\)"):
        densenet(DIGITS, blocks=[1] * 5)
    with pytest.raises(ContractError, match=r"a single pixel, too few for model.norm=instance"):
        densenet(DIGITS, blocks=[1] * 4, norm="instance")
    with pytest.raises(ContractError, match=r"model=densenet reads images"):
        densenet(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))


def test_layers_may_be_recomputed_from_outside_too():
    """As trainer.checkpoint_activations does: each layer is called a second time when later ones have been called."""
    results = []
    for whole in (False, True):
        torch.manual_seed(0)
        model = densenet(CIFAR, **TINY, memory_efficient=True)
        for layer in [*model.block1, *model.block2] if whole else []:
            layer.forward = partial(recomputed, layer.forward, layer)
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        results.append([*(p.grad for p in model.parameters()), *model.buffers()])
    assert all(torch.equal(plain, again) for plain, again in zip(*results, strict=True))
