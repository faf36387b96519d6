"""MLP-Mixer against the equations of the paper written out, its table of sizes, and a symmetry."""

import pytest
import torch
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError
from dlrun.models.mixer import mixer

SPEC = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, 8, 12), 10)
IMAGENET = DataSpec("imagenet", Task.CLASSIFICATION, Kind.IMAGE, (3, 224, 224), 1000)
SMALL = {"patch_size": 4, "width": 16, "depth": 2, "token_width": 5, "channel_width": 24}


def test_the_network_is_the_papers_equations():
    torch.manual_seed(0)
    model = mixer(SPEC, **SMALL).eval()
    x = torch.randn(2, 3, 8, 12)
    weight = model.embed.weight.flatten(1)
    patches = [x[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4, 8)]
    table = torch.stack([patch @ weight.T + model.embed.bias for patch in patches], dim=1)  # (B, patches, width)
    for block in (model.block1, model.block2):
        tokens, channels = block.tokens, block.channels
        normed, mixed = block.token_norm(table), table.clone()
        for column in range(16):  # the same MLP for every channel
            mixed[:, :, column] += tokens[2](F.gelu(tokens[0](normed[:, :, column])))
        normed, table = block.channel_norm(mixed), mixed.clone()
        for row in range(6):  # the same MLP for every patch
            table[:, row] += channels[2](F.gelu(channels[0](normed[:, row])))
    torch.testing.assert_close(model(x), model.output(model.norm(table).mean(1)))


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"patch_size": 16, "width": 768, "depth": 12, "token_width": 384, "channel_width": 3072}, 59_880_472),
        ({"patch_size": 16, "width": 512, "depth": 8, "token_width": 256, "channel_width": 2048}, 18_528_264),
    ],
    ids=["B/16", "S/16"],
)
def test_parameters_are_the_papers(options, parameters):
    """Table 1: 59 M and 18 M; to the unit, patches · 2 · D_S + D_S + patches + the like, and norms, added up."""
    with torch.device("meta"):
        model = mixer(IMAGENET, **options)
    c, s, d, p = options["width"], options["token_width"], options["channel_width"], 196
    block = 2 * p * s + s + p + 2 * c * d + d + c + 4 * c
    by_hand = 3 * 256 * c + c + options["depth"] * block + 2 * c + 1000 * c + 1000
    assert sum(q.numel() for q in model.parameters()) == by_hand == parameters


def test_without_token_mixing_the_order_of_patches_does_not_matter():
    torch.manual_seed(0)
    model = mixer(SPEC, **SMALL).eval()
    x = torch.randn(2, 3, 8, 12)
    turned = x.roll(4, dims=3)  # by one patch
    assert not torch.allclose(model(turned), model(x), atol=1e-3)
    for block in (model.block1, model.block2):
        torch.nn.init.zeros_(block.tokens[2].weight)
        torch.nn.init.zeros_(block.tokens[2].bias)
    torch.testing.assert_close(model(turned), model(x))


def test_dropout_and_stochastic_depth_act_only_in_training():
    x = torch.randn(8, 3, 8, 12)
    outputs = []
    for options in ({}, {"dropout": 0.3}, {"stochastic_depth": 0.5}):
        torch.manual_seed(0)
        model = mixer(SPEC, **SMALL, **options)
        outputs.append(model(x))
        assert torch.equal(outputs[-1], outputs[0]) == (not options)
        assert torch.equal(model.eval()(x), outputs[0])
    drops = [block.drop.drop_probability for block in (model.block1, model.block2)]
    assert drops == [0.25, 0.5]


def test_patches_that_do_not_tile_the_image_are_refused():
    with pytest.raises(ContractError, match=r"model.patch_size must divide.*data=photos, of shape \(3, 8, 12\), got 8"):
        mixer(SPEC, **SMALL | {"patch_size": 8})
    with pytest.raises(ContractError, match="model=mixer reads images"):
        mixer(DataSpec("moons", Task.CLASSIFICATION, Kind.VECTOR, (2,), 2))
