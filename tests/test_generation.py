"""Generation against running the whole model again for each token, and against closed forms."""

import itertools

import pytest
import torch
from torch import nn

from dlrun.contracts import EOS_ID
from dlrun.generation import Sampler, continuation, translate

GREEDY = {"temperature": 0.0}


class Recurrent(nn.Module):
    """A GRU language model that continues."""

    def __init__(self, tokens=11, width=12):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(tokens, width), nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, tokens)

    def forward(self, tokens):
        return self.step(tokens, None)[0]

    def step(self, tokens, state):
        outputs, state = self.rnn(self.embedding(tokens), state)
        return 5 * self.head(outputs), state


class Whole(nn.Module):
    """A model that only knows how to read everything."""

    def __init__(self, model):
        super().__init__()
        self.model, self.read = model, []

    def forward(self, *inputs):
        self.read.append(inputs[-1].shape[1])
        return self.model(*inputs)


class Translator(Recurrent):
    """Reads the source, then continues the target; made so that targets end after 1 to 8 tokens, half of them never."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.embedding.weight *= 3
            self.head.bias[EOS_ID] += 0.4

    def forward(self, source, shifted):
        return self.step(shifted, self.begin(source))[0]

    def begin(self, source):
        return self.rnn(self.embedding(source))[1]


def taken(stream, count):
    return torch.stack(list(itertools.islice(stream, count)), 1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Recurrent().eval()


@pytest.mark.parametrize("sampling", [GREEDY, {"temperature": 0.7, "top_k": 4}, {"temperature": 1.3}])
def test_fed_token_by_token_or_all_over_again_a_model_says_the_same(model, sampling):
    prompt = torch.tensor([[1, 2, 3], [7, 7, 0]])
    whole = Whole(model)
    fast = taken(continuation(model, prompt, Sampler(**sampling)), 20)
    slow = taken(continuation(whole, prompt, Sampler(**sampling)), 20)
    assert torch.equal(fast, slow)
    assert whole.read == list(range(3, 23))


def test_a_model_that_reads_whole_contexts_sees_the_last_ones_only(model):
    whole = Whole(model)
    taken(continuation(whole, torch.tensor([[1, 2, 3]]), Sampler(), context=5), 6)
    assert whole.read == [3, 4, 5, 5, 5, 5]


class Limited(nn.Module):
    """Says the sum of the last two tokens modulo 100, and keeps count of what it has been fed since the beginning."""

    max_length = 8

    def __init__(self):
        super().__init__()
        self.fed = []

    def step(self, tokens, state):
        seen = tokens if state is None else torch.cat([state, tokens], 1)
        assert seen.shape[1] <= self.max_length
        self.fed.append((state is None, tokens.shape[1]))
        return nn.functional.one_hot((seen[:, -2:].sum(1) % 100)[:, None], 100).float(), seen


def test_a_full_memory_begins_anew_from_its_last_half():
    model = Limited()
    said = taken(continuation(model, torch.tensor([[1, 1]]), Sampler(**GREEDY)), 12)[0].tolist()
    expected = [1, 1]
    for _ in range(12):
        expected.append((expected[-1] + expected[-2]) % 100)
    assert said == expected[2:]
    # 2 of the prompt and 6 more fill it; then 4 and 4 more, and again.
    assert model.fed == [(True, 2)] + [(False, 1)] * 6 + [(True, 4)] + [(False, 1)] * 4


def test_a_prompt_longer_than_the_memory_is_cut_to_its_end():
    model = Limited()
    prompt = torch.arange(30)[None]
    assert taken(continuation(model, prompt, Sampler(**GREEDY)), 1).item() == (28 + 29) % 100
    assert model.fed == [(True, 8)]


def test_equal_seeds_say_the_same_and_others_do_not(model):
    prompt = torch.tensor([[1]])

    def say(seed):
        return taken(continuation(model, prompt, Sampler(seed=seed)), 30).tolist()

    assert say(3) == say(3)
    assert say(3) != say(4)


def test_sampling_has_the_frequencies_of_the_softmax():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    for temperature in (0.5, 1.0, 2.0):
        drawn = Sampler(temperature, seed=1)(logits.expand(40_000, 4))
        expected = (logits[0] / temperature).softmax(0)
        # 4 standard deviations of a share at the most: fails by chance once in thousands of seeds
        assert (drawn.bincount(minlength=4) / 40_000 - expected).abs().max() < 0.01


def test_top_k_and_banned_tokens_are_all_that_can_be_drawn():
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0, 5.0]]).expand(500, 5)
    assert set(Sampler(10.0, top_k=2, banned=[4])(logits).tolist()) == {1, 2}
    assert set(Sampler(10.0, top_k=50)(logits).tolist()) == {0, 1, 2, 3, 4}
    assert set(Sampler(0.0, banned=[4])(logits).tolist()) == {1}


def test_a_translation_is_the_same_fast_and_slow_alone_and_in_company():
    torch.manual_seed(14)
    model = Translator().eval()
    source = torch.randint(0, 11, (40, 4))
    fast, slow = (translate(each, source, max_tokens=9) for each in (model, Whole(model)))
    assert torch.equal(fast, slow)
    lengths = []
    for row, tokens in zip(source, fast.tolist(), strict=True):
        alone = translate(model, row[None], max_tokens=9)[0].tolist()
        assert alone + [EOS_ID] * (len(tokens) - len(alone)) == tokens
        lengths.append(len(alone))
    assert len(set(lengths)) > 2
    assert max(lengths) <= 9


def test_nothing_but_the_end_follows_the_end():
    torch.manual_seed(14)
    said = translate(Translator().eval(), torch.randint(0, 11, (40, 4)), max_tokens=9)
    after = (said == EOS_ID).cumsum(1) > 0
    assert after.any()
    assert (said[after] == EOS_ID).all()
