"""The vision transformer, against torchvision's with the same weights."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torchvision.models import VisionTransformer

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.models.vit import patches, vit

CONF = Path(__file__).parents[2] / "conf" / "model"
MNIST = DataSpec("mnist", Task.CLASSIFICATION, Kind.IMAGE, (1, 28, 28), 10)
CIFAR = DataSpec("cifar10", Task.CLASSIFICATION, Kind.IMAGE, (3, 32, 32), 10)
IMAGENET = DataSpec("imagenet", Task.CLASSIFICATION, Kind.IMAGE, (3, 224, 224), 1000)
SMALL = {"width": 32, "depth": 2, "heads": 4}


def options(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert settings.pop("_target_") == "dlrun.models.vit.vit"
    return settings


def from_torchvision(state):
    """Torchvision's state under our names."""
    ours = {
        "embedding.weight": state["conv_proj.weight"].flatten(1),
        "embedding.bias": state["conv_proj.bias"],
        "cls_token": state["class_token"].flatten(),
        "stack.positions.embedding": state["encoder.pos_embedding"][0],
    }
    parts = {
        "ln_1": "attention.norm",
        "self_attention.in_proj": "attention.inner.qkv",
        "self_attention.out_proj": "attention.inner.output",
        "ln_2": "feed_forward.norm",
        "mlp.0": "feed_forward.inner.hidden",
        "mlp.3": "feed_forward.inner.output",
    }
    for name, tensor in state.items():
        name = name.replace("in_proj_", "in_proj.").replace("encoder.layers.encoder_layer_", "stack.blocks.")
        module, _, leaf = name.replace("encoder.ln", "stack.norm").replace("heads.head", "output").rpartition(".")
        for theirs, mine in parts.items():
            module = module.replace(theirs, mine)
        if module.startswith(("stack.blocks", "stack.norm", "output")):
            ours[f"{module}.{leaf}"] = tensor
    return ours


def test_with_torchvisions_weights_it_gives_torchvisions_outputs():
    torch.manual_seed(0)
    theirs = VisionTransformer(32, 8, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=256, num_classes=10).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    ours = vit(CIFAR, patch=8, width=64, depth=3, heads=4, readout="cls").eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_vit_b16_has_the_parameters_of_torchvisions():
    with torch.device("meta"):
        assert sum(p.numel() for p in vit(IMAGENET, **options("vit_b16")).parameters()) == 86_567_656


def test_patches_are_squares_in_reading_order():
    images = torch.randn(2, 3, 8, 12)
    cut = patches(images, 4)
    assert cut.shape == (2, 6, 48)
    torch.testing.assert_close(cut[1, 4], images[1, :, 4:8, 4:8].flatten())
    torch.testing.assert_close(patches(images.to(memory_format=torch.channels_last), 4), cut)
    torch.testing.assert_close(cut.mT, nn.functional.unfold(images, 4, stride=4))


@pytest.mark.parametrize("readout", ["mean", "cls"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_every_patch_counts_by_its_place(readout, positions):
    torch.manual_seed(0)
    model = vit(MNIST, patch=7, **SMALL, readout=readout, positions=positions)
    x = torch.randn(2, 1, 28, 28)
    outputs = model(x)
    assert outputs.shape == (2, 10)
    assert not torch.equal(model(x.roll(7, 3)), outputs)
    outputs.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters() if p.ndim > 1)


def test_bf16_and_where_it_looks():
    model = vit(CIFAR, patch=8, **SMALL, norm="rms", readout="cls", stochastic_depth=0.2, dropout=0.1)
    x = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        model(x).float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    found = model.attention_weights(x)
    assert [tuple(weights.shape) for weights in found.values()] == [(2, 4, 17, 17)] * 2


def test_images_that_are_no_whole_patches_are_refused_with_sizes_that_fit():
    with pytest.raises(
        ContractError, match=r"model.patch=8 .* data=mnist, of shape \(1, 28, 28\).*choose.*4, 7 or 14$"
    ):
        vit(MNIST, patch=8)
    vit(MNIST, patch=7, **SMALL)


def test_widths_without_room_for_sines_are_refused():
    with pytest.raises(ConfigError, match=r"a multiple of 4, got 6: choose 8, or model.positions=learned"):
        vit(MNIST, width=6, heads=2, positions="sinusoidal")
