"""IResNet (Deng et al. 2019, arXiv 1801.07698, section 3.2.2; Duta et al. 2020): the ArcFace papers' own ResNets."""

from __future__ import annotations

from torch import Tensor, nn

from training.embedder.backbones.autocast import without_autocast

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}  # depth → of each stage
_WIDTHS = (64, 128, 256, 512)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """BN, 3 × 3, BN, PReLU, 3 × 3 (here lies the stride), BN; plus the shortcut, and nothing after the sum."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            _conv(channels_in, channels_out, 3),
            nn.BatchNorm2d(channels_out),
            nn.PReLU(channels_out),
            _conv(channels_out, channels_out, 3, stride),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                _conv(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


class IResNet(nn.Module):
    """Embedder. In: float [n, 3, 112, 112], normalised. Out: float32 [n, dimension], **not** unit length.

    No stride and no pooling before the first stage, so a face is still 7 × 7 when all its places are read
    by one matrix. That matrix and the last normalisation stay in float32; the normalisation's scale is
    fixed at 1 (its bias is learnt), for the matrix before it has a scale of its own.

    depth: 18, 34, 50 or 100; dropout: before the matrix, 0–1; zero_init: each block starts as its shortcut.
    """

    def __init__(
        self, dimension: int = 512, depth: int = 50, *, dropout: float = 0.0, zero_init: bool = False
    ) -> None:
        super().__init__()
        self.dimension = dimension
        self.stem = nn.Sequential(_conv(3, 64, 3), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks: list[Block] = []
        channels = 64
        for width, repeats in zip(_WIDTHS, BLOCKS[depth], strict=True):
            for i in range(repeats):
                blocks.append(Block(channels, width, 2 if i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout(dropout), nn.Flatten())
        self.embedding = nn.Linear(channels * 7 * 7, dimension)
        self.norm = nn.BatchNorm1d(dimension)
        self.norm.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)
            elif zero_init and isinstance(module, Block):
                nn.init.zeros_(module.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        with without_autocast(x):  # the sum over 25,088 products decides the score: fp32
            return self.norm(self.embedding(x.float()))
