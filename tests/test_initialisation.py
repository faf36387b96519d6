"""Initialisation against torch.nn.init with the same seed, and against the variances of the papers."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from dlrun import initialisation as init
from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError
from dlrun.models.mlp import mlp
from dlrun.models.transformer import transformer
from dlrun.models.whitened_cnn import whitened_cnn

SPEC = DataSpec("wine", Task.CLASSIFICATION, Kind.VECTOR, (13,), 3)


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (init.xavier, nn.init.xavier_uniform_),
        (lambda m: init.xavier(m, gain=2.0, distribution="normal"), lambda w: nn.init.xavier_normal_(w, 2.0)),
        (init.he, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (
            lambda m: init.he(m, mode="fan_out", distribution="uniform"),
            lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"),
        ),
        (init.lecun, lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
        (init.orthogonal, nn.init.orthogonal_),
        (init.truncated_normal, lambda w: nn.init.trunc_normal_(w, std=0.02, a=-0.04, b=0.04)),
    ],
    ids=["xavier", "xavier_normal", "he", "he_uniform", "lecun", "orthogonal", "truncated_normal"],
)
def test_the_same_seed_gives_torchs_own_bits(ours, torchs):
    model, expected = small(), small()
    torch.manual_seed(5)
    ours(model)
    torch.manual_seed(5)
    for layer in (0, 3, 4):
        torchs(expected[layer].weight)
        nn.init.zeros_(expected[layer].bias)
    for layer in (0, 3, 4):
        torch.testing.assert_close(model[layer].weight, expected[layer].weight, rtol=1e-6, atol=0)
        assert not model[layer].bias.any()
    assert torch.equal(model[1].weight, torch.ones(8))


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_variances_are_the_papers(distribution):
    model = nn.Linear(400, 100)
    cases = ((init.xavier, 2 / 500), (init.he, 2 / 400), (init.lecun, 1 / 400))
    for function, variance in cases:
        torch.manual_seed(0)
        function(model, distribution=distribution)
        # Relative standard error of a variance of 40,000 normal numbers: sqrt(2 / 40000) = 0.7 %.
        assert model.weight.var().item() == pytest.approx(variance, rel=0.03)
        assert abs(model.weight.mean().item()) < 5 * math.sqrt(variance / 40_000)
        if distribution == "uniform":
            assert model.weight.abs().max().item() <= math.sqrt(3 * variance)


def test_orthogonal_matrices_keep_lengths():
    model = nn.Sequential(nn.Linear(20, 20), nn.Conv2d(4, 8, 3))
    init.orthogonal(model, gain=2.0)
    for weight in (model[0].weight, model[1].weight.flatten(1)):
        torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(len(weight)), atol=1e-5, rtol=0)


def test_truncated_normal_stays_within_and_has_the_truncated_variance():
    model = nn.Linear(300, 300)
    init.truncated_normal(model, std=0.1, cutoff=2.0)
    assert model.weight.abs().max() <= 0.2
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    inside = math.erf(2 / math.sqrt(2))
    assert model.weight.var().item() == pytest.approx(0.01 * (1 - 4 * density / inside), rel=0.03)


def test_matrices_held_in_one_tensor_are_filled_one_by_one():
    lstm, attention = nn.LSTM(8, 16, proj_size=4), nn.MultiheadAttention(8, 2)
    init.orthogonal(lstm)
    init.orthogonal(attention)
    gates = [*lstm.weight_ih_l0.chunk(4), *lstm.weight_hh_l0.chunk(4), lstm.weight_hr_l0]
    for weight in [*gates, *attention.in_proj_weight.chunk(3), attention.out_proj.weight]:
        small_side = weight if weight.shape[0] <= weight.shape[1] else weight.T
        torch.testing.assert_close(small_side @ small_side.T, torch.eye(len(small_side)), atol=1e-5, rtol=0)
    assert not any(p.any() for name, p in [*lstm.named_parameters(), *attention.named_parameters()] if "bias" in name)


def test_transposed_convolutions_have_their_own_fan_in():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(64, 128, 4, groups=2)
    init.lecun(layer)
    assert layer.weight.var().item() == pytest.approx(1 / (32 * 16), rel=0.05)


def test_shared_weights_are_drawn_once():
    linear = nn.Linear(4, 4)
    model = nn.Sequential(linear, nn.ReLU(), linear, nn.Linear(4, 2))
    assert len(list(init.weights(model))) == 2


@pytest.mark.parametrize(("layer", "dim"), [(nn.Conv2d(3, 8, 3), 0), (nn.Linear(8, 6), 0), (nn.Linear(8, 6), 1)])
def test_a_weight_normed_layer_gets_the_weight_that_a_plain_one_gets(layer, dim):
    plain = copy.deepcopy(layer)
    weight_norm(layer, dim=dim)
    for model in (plain, layer):
        torch.manual_seed(3)
        init.he(model)
    torch.testing.assert_close(layer.weight, plain.weight)
    assert torch.equal(layer.parametrizations.weight.original1, plain.weight)
    assert not layer.bias.any()
    assert len(list(init.weights(layer))) == 1


def test_norms_embeddings_and_the_default_are_left_alone():
    model = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    init.default(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    init.xavier(model)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)]
    assert changed == ["2.weight", "2.bias"]


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2_starts_every_table_and_matrix_at_one_deviation_and_the_ends_of_branches_lower(tied):
    spec = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (64,), 65, vocabulary_size=65)
    model = transformer(spec, width=64, depth=3, heads=2, positions="learned", tie_weights=tied)
    init.gpt2(model, std=0.05)
    ends = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            assert torch.equal(parameter, torch.full_like(parameter, "norm" in name and "weight" in name))
            continue
        end = name.endswith("inner.output.weight")
        ends += end
        # At least 4096 numbers: the relative standard error of a deviation is at most 1.1 %.
        assert parameter.std().item() == pytest.approx(0.05 / math.sqrt(6 if end else 1), rel=0.06), name
    assert ends == 6


def test_gpt2_finds_foreign_ends_by_pattern():
    model = nn.ModuleDict({"c_fc": nn.Linear(100, 400), "c_proj": nn.Linear(400, 100), "mlp_c_proj": nn.Linear(400, 9)})
    init.gpt2(model, residual="*c_proj")
    deviations = [layer.weight.std().item() for layer in model.values()]
    assert deviations == pytest.approx([0.02, 0.02 / 2**0.5, 0.02 / 2**0.5], rel=0.06)
    assert not any(layer.bias.any() for layer in model.values())


def test_gpt2_without_such_layers_is_refused():
    with pytest.raises(ConfigError, match=r"no linear layer named '\*.inner.output'.*model=gpt.*init.residual"):
        init.gpt2(mlp(SPEC))


def test_zero_last_norm_makes_residual_blocks_the_identity():
    model = mlp(SPEC, widths=[8, 8, 8], norm="batch", residual=True)
    weight = model.block2.linear.weight.clone()
    init.zero_last_norm(model)
    x = torch.randn(5, 8)
    assert torch.equal(model.block3(model.block2(x)), x)
    assert torch.equal(model.block2.linear.weight, weight)
    assert torch.equal(model.norm1.weight, torch.ones(8))


def test_zero_last_norm_finds_foreign_norms_by_pattern():
    model = nn.Sequential()
    model.layer = nn.ModuleDict({"bn1": nn.BatchNorm2d(2), "bn2": nn.BatchNorm2d(2)})
    init.zero_last_norm(model, pattern="*.bn2")
    assert model.layer["bn1"].weight.tolist() == [1, 1]
    assert model.layer["bn2"].weight.tolist() == [0, 0]


def test_zero_last_norm_without_such_norms_is_refused():
    with pytest.raises(ConfigError, match=r"no norm named '\*last_norm'.*model.residual=true"):
        init.zero_last_norm(mlp(SPEC))


def test_only_the_global_generator_is_used():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        model = small()
        init.he(model)
        results.append(model[3].weight)
    assert torch.equal(*results)


def saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def test_from_checkpoint_takes_what_fits_and_says_what_does_not(tmp_path, caplog):
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    target = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 5))
    head = target[2].weight.detach().clone()
    with torch.no_grad():
        source[1].running_mean.fill_(7.0)
    for content in (source.state_dict(), {"model": source.state_dict()}, {"state_dict": source.state_dict()}):
        path = saved(tmp_path / "weights.pt", content)
        with torch.no_grad():
            target[0].weight.zero_()
        init.from_checkpoint(target, path=path)
        assert torch.equal(target[0].weight, source[0].weight)
        assert torch.equal(target[1].running_mean, source[1].running_mean)
        assert torch.equal(target[2].weight, head)
        assert caplog.messages[-1].endswith("7 of 9 tensors taken; left as initialised: 2.weight, 2.bias")
    with pytest.raises(ConfigError, match=r"fits 7 of the model's 9 tensors .* init.strict=false takes those that fit"):
        init.from_checkpoint(target, path=path, strict=True)
    init.from_checkpoint(copy.deepcopy(source), path=path, strict=True)
    with pytest.raises(ConfigError, match="fits 0 of the model's 2 tensors"):
        init.from_checkpoint(nn.Linear(9, 9), path=path)


def test_from_checkpoint_refuses_what_holds_no_weights(tmp_path):
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"there is no file .*absent.pt"):
        init.from_checkpoint(model, path=str(tmp_path / "absent.pt"))
    with pytest.raises(ConfigError, match=r"there is no file .*best.pt"):
        init.from_checkpoint(model, path=str(tmp_path))
    with pytest.raises(ConfigError, match="holds no weights by name but list"):
        init.from_checkpoint(model, path=saved(tmp_path / "list.pt", [1, 2]))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        init.from_checkpoint(model, path=str(tmp_path / "text.pt"))


def test_joined_linear_layers_are_filled_part_by_part():
    model = nn.ModuleDict({"qkv": nn.Linear(64, 192), "key_value": nn.Linear(64, 128), "other": nn.Linear(64, 192)})
    init.orthogonal(model)
    for name, parts in (("qkv", 3), ("key_value", 2)):
        for part in model[name].weight.chunk(parts):
            torch.testing.assert_close(part @ part.T, torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(model["other"].weight.T @ model["other"].weight, torch.eye(64), atol=1e-5, rtol=0)
    init.xavier(model)
    assert model["qkv"].weight.var().item() == pytest.approx(2 / 128, rel=0.05)
    assert model["other"].weight.var().item() == pytest.approx(2 / 256, rel=0.05)


IMAGES = DataSpec("photos", Task.CLASSIFICATION, Kind.IMAGE, (3, 12, 12), 4)


def correlated(count):
    """Images whose neighbouring pixels and channels go together, as in photographs."""
    noise = torch.randn(2000, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return nn.functional.avg_pool2d(noise + noise.mean(1, keepdim=True), 3, 1)[:count]


def test_whitening_gives_uncorrelated_outputs_of_variance_one_and_their_opposites():
    torch.manual_seed(0)
    model = whitened_cnn(IMAGES, widths=[4])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    init.whitening(model, correlated, eps=1e-9)
    filters = model.whitening.weight
    out = nn.functional.conv2d(correlated(2000), filters).movedim(1, 0).flatten(1)
    torch.testing.assert_close(out[:12] @ out[:12].T / out.shape[1], torch.eye(12), rtol=0, atol=1e-3)
    assert torch.equal(filters[12:], -filters[:12])
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["whitening.weight"]


def test_whitening_damps_directions_of_little_variance():
    """With eps the variance of output i becomes λᵢ / (λᵢ + eps); only so many images are asked for."""
    asked = []

    def inputs(count):
        asked.append(count)
        return correlated(count)

    model = whitened_cnn(IMAGES, widths=[4])
    init.whitening(model, inputs, images=300, eps=0.05)
    assert asked == [300]
    patches = nn.functional.unfold(correlated(300), 2).movedim(1, 0).flatten(1).double()
    values = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1])
    out = nn.functional.conv2d(correlated(300), model.whitening.weight[:12]).movedim(1, 0).flatten(1)
    torch.testing.assert_close(out.square().mean(1).double(), values / (values + 0.05), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("0", "makes 54 filters, two for each number in a patch of 3x3x3, but init.layer=0 has 8 in 1 groups"),
        ("1", "fills a convolution called '1', and this model has none: it needs model=whitened_cnn, or init.layer"),
    ],
)
def test_whitening_of_what_is_no_such_convolution_is_refused(layer, message):
    with pytest.raises(ConfigError, match=message):
        init.whitening(small(), correlated, layer=layer)
