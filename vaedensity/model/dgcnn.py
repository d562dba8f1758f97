"""Dilated gated convolutions over sequences: DGCNN.

Su 2018, "DGCNN: a reading-comprehension model on CNNs", kexue.fm/archives/5409; gates as in Dauphin et al. 2017,
dilation as in Yu & Koltun 2016.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.errors import UsageError

DILATIONS = (1, 2, 5, 1, 2, 5, 1, 2, 5, 1, 1, 1)
"""Of the twelve blocks of the source: a position then sees 27 others on either side (54 before it if causal)."""


class GatedBlock(nn.Module):
    """A gated convolution with a path past it (Su 2018): where the gate is open, x goes through as it is.

        [g, h] = Conv1d(x),  g = sigmoid(dropout(g)),  y = (g x + (1 - g) h) mask

    Parameters
    ----------
    width : int
        Channels in and out.
    dilation, kernel : int
        The distance of the taps, and their number, which is odd.
    dropout : float
        Of the gate alone, before the sigmoid, in training.
    causal : bool
        Whether a position sees only itself and what comes before.
    open_gate : float
        The gate's bias at the start; a positive one lets x pass.

    Raises
    ------
    UsageError
        For sizes out of range.

    Examples
    --------
    >>> GatedBlock(16, dilation=2)(torch.randn(2, 16, 50)).shape
    torch.Size([2, 16, 50])
    """

    def __init__(
        self,
        width: int,
        dilation: int = 1,
        *,
        kernel: int = 3,
        dropout: float = 0.1,
        causal: bool = False,
        open_gate: float = 0.0,
    ):
        super().__init__()
        if kernel % 2 == 0 or min(width, kernel, dilation) < 1 or not 0 <= dropout < 1:
            raise UsageError(
                f"GatedBlock: width {width}, kernel {kernel}, dilation {dilation}, dropout {dropout}; "
                "expected positive numbers, an odd kernel and a dropout of 0 to below 1"
            )
        self.convolution = nn.Conv1d(width, 2 * width, kernel, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        reach = dilation * (kernel - 1)
        self.padding = (reach, 0) if causal else (reach // 2, reach // 2)
        with torch.no_grad():
            self.convolution.bias[:width] = open_gate  # type: ignore[index]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, width, T) from (B, width, T) and a ``mask`` (B, T) of 0 and 1, 0 beyond the sequence's end."""
        gate, h = self.convolution(F.pad(x, self.padding)).chunk(2, 1)
        gate = torch.sigmoid(self.dropout(gate))
        y: Tensor = gate * x + (1 - gate) * h
        return y if mask is None else y * mask[:, None].to(y.dtype)


class DGCNN(nn.Module):
    """Gated blocks, one after the other for each of ``dilations``: a network over sequences (Su 2018).

    Behind the end of a sequence the output is 0, and what stands there in the input is not seen. ``reach``: how many
    positions before (unless causal: and behind) a position are seen from it.

    Parameters
    ----------
    width : int
        Channels in and out.
    dilations : sequence of int
        One a block.
    kernel, dropout, causal, open_gate
        As for :class:`GatedBlock`.

    Examples
    --------
    >>> network = DGCNN(16).eval()
    >>> x = torch.randn(2, 16, 50)
    >>> network(x).shape, network.reach
    (torch.Size([2, 16, 50]), 27)
    """

    def __init__(
        self,
        width: int,
        dilations: Sequence[int] = DILATIONS,
        *,
        kernel: int = 3,
        dropout: float = 0.1,
        causal: bool = False,
        open_gate: float = 0.0,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            GatedBlock(width, r, kernel=kernel, dropout=dropout, causal=causal, open_gate=open_gate) for r in dilations
        )
        self.reach = sum(dilations) * (kernel - 1) // (1 if causal else 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, width, T) from (B, width, T) and an optional ``mask`` (B, T) of 0 and 1."""
        if mask is not None:
            x = x * mask[:, None].to(x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return x
