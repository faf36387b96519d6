"""The transformer for each task: what it may see, what it may not, how it goes on, and counts from the papers."""

import copy
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ConfigError, ContractError
from dlrun.models.transformer import transformer
from dlrun.optim.averaging import ExponentialMovingAverage
from dlrun.optim.parameter_groups import parameter_groups
from dlrun.optim.rules import ParameterGroups
from tests.samples import SAMPLES

CONF = Path(__file__).parents[2] / "conf" / "model"
POSITIONS = ["learned", "sinusoidal", "rotary", "none"]
TEXT = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (9,), 11, vocabulary_size=11)
SENTENCES = DataSpec("sentences", Task.CLASSIFICATION, Kind.TOKENS, (9,), 2, vocabulary_size=11, padding=0)
PAIRS = DataSpec(
    "pairs", Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (7,), 13, vocabulary_size=11, padding=0, target_length=6
)
SMALL = {"width": 16, "depth": 2, "heads": 2}


def options(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert settings.pop("_target_") == "dlrun.models.transformer.transformer"
    return settings


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def randomised(model):
    """Weights large enough that everything matters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model.double().eval()


def tokens(*shape, first=1, last=11):
    return torch.randint(first, last, shape, generator=torch.Generator().manual_seed(1))


# --- Language model


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_later_token_changes_no_earlier_logit(positions):
    model = randomised(transformer(TEXT, **SMALL, positions=positions))
    text = tokens(3, 9)
    before = model(text)
    for t in range(1, 9):
        changed = text.clone()
        changed[:, t] = (changed[:, t] + 1) % 11
        after = model(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, t], before[:, t])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 3, 1], [9]])
def test_a_text_in_pieces_gives_the_logits_of_the_whole(positions, pieces):
    model = randomised(transformer(TEXT, **SMALL, positions=positions, norm="rms", activation="swiglu", bias=False))
    text, state, logits = tokens(3, 9), None, []
    for piece in text.split(pieces, dim=1):
        new, state = model.step(piece, state)
        logits.append(new)
    torch.testing.assert_close(torch.cat(logits, 1), model(text))


def test_a_state_can_be_gone_on_from_twice():
    model = randomised(transformer(TEXT, **SMALL))
    text = tokens(2, 5)
    _, state = model.step(text[:, :3])
    model.step(tokens(2, 4), state)
    torch.testing.assert_close(model.step(text[:, 3:], state)[0], model(text)[:, 3:])


def test_texts_end_where_learned_positions_do():
    model = transformer(TEXT, **SMALL, positions="learned")
    assert model.max_length == 9
    _, state = model.step(tokens(1, 9))
    with pytest.raises(ContractError, match=r"learned 9 positions and was given 10 tokens"):
        model.step(tokens(1, 1), state)
    transformer(TEXT, **SMALL, positions="rotary")(tokens(1, 20))


def test_tied_weights_are_one_tensor_everywhere():
    model = transformer(TEXT, **SMALL)
    assert model.output.weight is model.embedding.weight
    untied = transformer(TEXT, **SMALL, tie_weights=False)
    assert parameters(untied) - parameters(model) == 11 * 16
    copied = copy.deepcopy(model)
    assert copied.output.weight is copied.embedding.weight
    average = ExponentialMovingAverage(model, 0.9)
    assert average.module.output.weight is average.module.embedding.weight
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, rules=ParameterGroups())
    assert sum(p.numel() for group in groups for p in group["params"]) == parameters(model)
    copied.load_state_dict(untied.state_dict() | {"embedding.weight": untied.output.weight})
    assert copied.output.weight is copied.embedding.weight


def test_only_equal_vocabularies_can_be_tied():
    spec = DataSpec("odd", Task.LANGUAGE_MODELLING, Kind.TOKENS, (9,), 5, vocabulary_size=11)
    with pytest.raises(ConfigError, match=r"the 11 tokens that data=odd reads and the 5 it predicts"):
        transformer(spec, **SMALL)
    assert transformer(spec, **SMALL, tie_weights=False)(tokens(2, 9)).shape == (2, 9, 5)


def test_a_fresh_language_model_knows_nothing():
    torch.manual_seed(0)
    text = tokens(64, 9, first=0)
    loss = F.cross_entropy(transformer(TEXT, **SMALL)(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(11.0).log().item(), abs=0.3)


# --- Translator


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_a_translation_in_pieces_gives_the_logits_of_the_whole(positions, norm_position):
    model = randomised(transformer(PAIRS, **SMALL, positions=positions, norm_position=norm_position))
    source, shifted = tokens(3, 7), tokens(3, 6, last=13)
    source[0, 4:] = 0
    expected = model(source, shifted)
    for pieces in ([1] * 6, [2, 4]):
        state, logits = model.begin(source), []
        for piece in shifted.split(pieces, dim=1):
            new, state = model.step(piece, state)
            logits.append(new)
        torch.testing.assert_close(torch.cat(logits, 1), expected)
    changed = shifted.clone()
    changed[:, 3] = 12 - changed[:, 3]
    after = model(source, changed)
    torch.testing.assert_close(after[:, :3], expected[:, :3], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 4:], expected[:, 4:])


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_of_a_source_changes_nothing(positions):
    model = randomised(transformer(PAIRS, **SMALL, positions=positions))
    source, shifted = tokens(2, 4), tokens(2, 6, last=13)
    torch.testing.assert_close(model(F.pad(source, (0, 3)), shifted), model(source, shifted))
    assert not torch.allclose(model(F.pad(source, (0, 3), value=5), shifted), model(source, shifted))


def test_a_state_is_tensors_with_the_batch_first():
    model = randomised(transformer(PAIRS, **SMALL))
    source, shifted = tokens(3, 7), tokens(3, 4, last=13)
    _, state = model.step(shifted[:, :3], model.begin(source))
    order = torch.tensor([2, 0, 0])
    chosen = torch.utils._pytree.tree_map(lambda tensor: tensor[order], state)
    expected = model(source[order], shifted[order])[:, 3:]
    torch.testing.assert_close(model.step(shifted[order][:, 3:], chosen)[0], expected)


def test_where_a_translator_looks():
    model = transformer(PAIRS, **SMALL)
    source, shifted = tokens(2, 7), tokens(2, 4, last=13)
    source[0, 5:] = 0
    found = model.attention_weights(source, shifted)
    assert len(found) == 6
    crossing = found["decoder.blocks.1.cross.inner"]
    assert crossing.shape == (2, 2, 4, 7)
    assert not crossing[0, :, :, 5:].any()
    torch.testing.assert_close(crossing.sum(-1), torch.ones(2, 2, 4))


# --- Classifier


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_padding_changes_no_answer(positions, readout):
    model = randomised(transformer(SENTENCES, **SMALL, positions=positions, readout=readout))
    text = tokens(3, 5)
    torch.testing.assert_close(model(F.pad(text, (0, 4))), model(text))
    assert torch.isfinite(model(torch.zeros(1, 9, dtype=torch.long))).all()


@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_order_is_invisible_without_positions_alone(readout):
    text = tokens(3, 9)
    blind = randomised(transformer(SENTENCES, **SMALL, positions="none", readout=readout))
    torch.testing.assert_close(blind(text.flip(1)), blind(text))
    for positions in POSITIONS[:-1]:
        model = randomised(transformer(SENTENCES, **SMALL, positions=positions, readout=readout))
        assert not torch.allclose(model(text.flip(1)), model(text))


def test_images_are_read_by_rows():
    spec = DataSpec("images", Task.CLASSIFICATION, Kind.IMAGE, (3, 4, 5), 2)
    rows = DataSpec("rows", Task.CLASSIFICATION, Kind.SEQUENCE, (4, 15), 2)
    images = torch.randn(2, 3, 4, 5)
    by_hand = torch.stack(
        [torch.cat([image[:, row].flatten() for image in images[i : i + 1]]) for i in range(2) for row in range(4)]
    )
    model = transformer(spec, **SMALL)
    reader = transformer(rows, **SMALL)
    reader.load_state_dict(model.state_dict())
    torch.testing.assert_close(reader(by_hand.view(2, 4, 15)), model(images))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_every_shape_of_data_learns_in_bf16_or_is_refused(name, readout):
    splits = SAMPLES[name]()
    if splits.spec.kind is Kind.VECTOR:
        with pytest.raises(ContractError, match=f"model=transformer reads .* data={name} gives vectors"):
            transformer(splits.spec, **SMALL)
        return
    model = transformer(splits.spec, **SMALL, readout=readout, norm="rms")
    batch = splits.train.take(torch.arange(4))
    inputs = [x.float() / 255 if x.dtype == torch.uint8 else x for x in batch.arguments]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(*inputs)
        outputs.float().square().sum().backward()
    assert outputs.shape[-1] == splits.spec.num_outputs
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_sequences_of_numbers_cannot_be_written():
    spec = DataSpec("curves", Task.LANGUAGE_MODELLING, Kind.SEQUENCE, (9, 2), 5)
    with pytest.raises(ContractError, match=r"model=transformer reads tokens.* \(time,\), but data=curves"):
        transformer(spec, **SMALL)


# --- Counts


def test_gpt2_has_the_parameters_of_gpt2():
    spec = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (1024,), 50257, vocabulary_size=50257)
    with torch.device("meta"):
        assert parameters(transformer(spec, **options("gpt2"))) == 124_439_808


def test_gpt_has_the_parameters_of_nanogpt():
    # Tokens and positions 65·128 + 64·128, four blocks of 12·128² and two norms, and the last norm.
    spec = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (64,), 65, vocabulary_size=65)
    assert parameters(transformer(spec, **options("gpt"))) == 129 * 128 + 4 * (12 * 128**2 + 256) + 128 == 804_096


def test_transformer_base_has_the_parameters_of_the_paper():
    # 6 · (4·(512² + 512) + 2·512·2048 + 2560 + 2·1024), and in the decoder 6 · (4·(512² + 512) + 1024) more.
    spec = DataSpec(
        "wmt", Task.SEQUENCE_TO_SEQUENCE, Kind.TOKENS, (100,), 37000, vocabulary_size=37000, target_length=100
    )
    with torch.device("meta"):
        model = transformer(spec, **options("transformer_base"))
    assert parameters(model.encoder) == 18_914_304
    assert parameters(model.decoder) == 25_224_192
    # The paper's 65 M: one matrix for the tokens of both languages, which are two here.
    assert parameters(model) - 37000 * 512 == pytest.approx(65e6, rel=0.03)


def test_llama_has_only_matrices_and_gains():
    spec = DataSpec("text", Task.LANGUAGE_MODELLING, Kind.TOKENS, (64,), 65, vocabulary_size=65)
    hidden = 344  # two thirds of 512, to a multiple of 8
    expected = 2 * 65 * 128 + 4 * (4 * 128**2 + 3 * 128 * hidden + 256) + 128
    assert parameters(transformer(spec, **options("llama"))) == expected
