"""The jobs of training_speed.py, as dlrun is told them and as they are written by hand: models, batches, loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peer_data import cifar_folder, mnist_root
from torch import Tensor, nn
from torch.nn import functional as F

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass
class Work:
    """One job, as dlrun is told it and as it is written by hand.

    Attributes:
        words: of dlrun.
        model: the same architecture; its parameters are registered in the order of dlrun's.
        batches: from the training examples of dlrun's split, the batch size and the steps: endless enough batches.
        steps: per round.
        folder: of torchvision's data set, or None.
        timm: name and root of the data set for timm, and the shape of an image; or None.
        clip: the largest norm of the gradients.
    """

    words: list[str]
    model: Callable[[], nn.Module]
    batches: Callable[[Any, Any, int], Batches]
    batch_size: int
    steps: int
    loader: Callable[[Any, int, int], Batches] | None = None
    timm: Callable[[], tuple[tuple[str, str], tuple[int, int, int]]] | None = None
    clip: float | None = None
    convolves: bool = False


class LSTMByRows(nn.Module):
    """Reads an image row by row; a class from the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(28, 128, batch_first=True)
        self.output = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.rnn(images.squeeze(1))
        return self.output(outputs[:, -1])


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, causal: bool, bias: bool, eps: float) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1 = nn.LayerNorm(width, eps, bias=bias)
        self.projection = nn.Linear(width, width, bias)
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.norm2 = nn.LayerNorm(width, eps, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width, bias), nn.GELU(), nn.Linear(4 * width, width, bias))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.projection(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """conf/experiment/mnist_vit.yaml's: 16 patches of 7 x 7, 64 wide, 4 blocks, mean over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, 7, stride=7)
        self.positions = nn.Embedding(16, 64)
        self.blocks = nn.Sequential(*(Block(64, 4, causal=False, bias=True, eps=1e-6) for _ in range(4)))
        self.norm = nn.LayerNorm(64, 1e-6)
        self.output = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions.weight
        return self.output(self.norm(self.blocks(x)).mean(1))


class GPT(nn.Module):
    """nanoGPT's setting for a CPU: 4 blocks, 128 wide, 4 heads, context 64, no biases, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(65, 128)
        self.positions = nn.Embedding(64, 128)
        self.blocks = nn.Sequential(*(Block(128, 4, causal=True, bias=False, eps=1e-5) for _ in range(4)))
        self.norm = nn.LayerNorm(128, bias=False)
        self.output = nn.Linear(128, 65, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.output.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.norm(self.blocks(self.tokens(tokens) + self.positions.weight)))


def resnet18() -> nn.Module:
    """torchvision's, with the stem for small images: a 3x3 convolution of stride 1 and no pooling."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()  # type: ignore[assignment]
    return model


def image_batches(examples: Any, spec: Any, batch_size: int) -> Batches:
    """Normalised once, then indexed by a permutation."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    images = examples.inputs.float().div_(255).sub_(mean).div_(std)
    while True:
        for index in torch.randperm(len(images)).split(batch_size):
            yield images[index], examples.targets[index]


def text_batches(examples: Any, spec: Any, batch_size: int) -> Batches:
    """Windows that begin anywhere in the text, as nanoGPT draws them."""
    text, length = examples.text.long(), examples.length
    offsets = torch.arange(length)
    while True:
        at = torch.randint(len(text) - length, (batch_size, 1)) + offsets
        yield text[at], text[at + 1]


def mnist_loader(spec: Any, batch_size: int, workers: int) -> Batches:
    """What tutorials write."""
    from torchvision import datasets, transforms

    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
    data = datasets.MNIST(str(mnist_root()), train=True, transform=change)
    yield from torch.utils.data.DataLoader(data, batch_size, shuffle=True, num_workers=workers)


def cifar_loader(spec: Any, batch_size: int, workers: int) -> Batches:
    """torchvision's folder of JPEGs."""
    from torchvision import datasets, transforms

    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
    data = datasets.ImageFolder(str(cifar_folder() / "train"), change)
    yield from torch.utils.data.DataLoader(data, batch_size, shuffle=True, num_workers=workers)


WORKS = {
    "resnet18": Work(
        ["data=cifar10_jpeg", "model=resnet18", "data.val_fraction=0.002"],
        resnet18,
        image_batches,
        batch_size=128,
        steps=5,
        loader=cifar_loader,
        timm=lambda: (("", str(cifar_folder())), (3, 32, 32)),
        convolves=True,
    ),
    "lstm": Work(["data=mnist", "model=lstm"], LSTMByRows, image_batches, 128, 60, loader=mnist_loader),
    "vit": Work(
        ["data=mnist", "model=vit", "model.patch=7", "model.width=64", "model.depth=4"],
        ViT,
        image_batches,
        batch_size=128,
        steps=60,
        loader=mnist_loader,
        timm=lambda: (("torch/mnist", str(mnist_root())), (1, 28, 28)),
    ),
    "gpt": Work(["data=tinyshakespeare", "model=gpt", "trainer.clip.norm=1"], GPT, text_batches, 12, 100, clip=1.0),
}
TITLES = {
    "resnet18": "CIFAR-10 (JPEG), ResNet-18, batch 128",
    "lstm": "MNIST by rows, LSTM 128, batch 128",
    "vit": "MNIST, ViT 64 wide, 4 deep, batch 128",
    "gpt": "tinyshakespeare, GPT 128 wide, 4 deep, batch 12 x 64",
}
