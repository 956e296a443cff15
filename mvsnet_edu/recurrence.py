"""The recurrent alternative to the 3D network: cells with a memory walk through the planes, one by one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .features import CHANNELS

__all__ = ["ConvGRUCell", "RecurrentRegNet"]

#: What each cell remembers of the planes before; None before the first plane.
States = list[Tensor] | None


class ConvGRUCell(nn.Module):
    """One step of a gated recurrent unit whose memory is a map: x (B, C, h, w), state -> state (B, F, h, w).

    Two gates look at the input and at the memory. The reset gate r decides how much of the memory the
    proposal y gets to see; the update gate u, how much of the memory stays: h' = u h + (1 - u) y. So the
    memory is always an average of proposals, each within (-1, 1). Every convolution is normalised over all
    its channels and pixels together before its sigmoid or tanh.

    Args:
        channels: of the input, C.
        width: channels of the memory, F.

    Source: equations (1) to (3) of the R-MVSNet paper; ``mvsnet/convgru.py:ConvGRUCell``.

    >>> cell = ConvGRUCell(3, 2)
    >>> cell(torch.rand(1, 3, 4, 5), torch.zeros(1, 2, 4, 5)).shape
    torch.Size([1, 2, 4, 5])
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.width = width
        self.gates = nn.Conv2d(channels + width, 2 * width, 3, padding=1)
        self.reset_norm = nn.GroupNorm(1, width)
        self.update_norm = nn.GroupNorm(1, width)
        self.proposal = nn.Conv2d(channels + width, width, 3, padding=1)
        self.proposal_norm = nn.GroupNorm(1, width)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """(B, C, h, w), (B, F, h, w) -> (B, F, h, w)."""
        reset, update = self.gates(torch.cat([x, state], dim=1)).chunk(2, dim=1)  # (B, F, h, w) each
        reset, update = self.reset_norm(reset).sigmoid(), self.update_norm(update).sigmoid()
        proposal = self.proposal_norm(self.proposal(torch.cat([x, reset * state], dim=1))).tanh()
        to = state.dtype  # under autocast what was computed is in half precision, but not the memory
        return torch.lerp(proposal.to(to), state, update.to(to))


class RecurrentRegNet(nn.Module):
    """Cost volume to scores, (B, 32, D, h, w) -> (B, D, h, w), with a memory that does not grow with D.

    Plane after plane goes through three cells, one above the other, and a last convolution. What the planes
    before have to say comes to a plane through the cells' memories; the planes behind it have no say.
    The scores can be had in parts: pass the states that one part returns to the next.

    Args:
        widths: channels of the cells' memories. The paper has 16, 4, 1; the authors' code 16, 4, 2.

    Source: section 3.2 of the R-MVSNet paper; ``model.py:inference_prob_recurrent``.

    >>> net, volume = RecurrentRegNet(), torch.rand(1, 32, 5, 6, 7)
    >>> first, states = net(volume[:, :, :2])
    >>> rest, _ = net(volume[:, :, 2:], states)
    >>> torch.equal(torch.cat([first, rest], dim=1), net(volume)[0])
    True
    """

    def __init__(self, widths: tuple[int, ...] = (16, 4, 2)):
        super().__init__()
        pairs = zip((CHANNELS, *widths[:-1]), widths, strict=True)
        self.cells = nn.ModuleList(ConvGRUCell(*pair) for pair in pairs)
        self.score = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, volume: Tensor, states: States = None) -> tuple[Tensor, States]:
        """Scores (B, D, h, w), high where a plane is probable, and the states after the last plane."""
        B, _, _, h, w = volume.shape
        states = states or [volume.new_zeros(B, cell.width, h, w) for cell in self.cells]
        scores = []
        for plane in (-volume).unbind(dim=2):  # (B, 32, h, w): the original feeds in minus the cost
            x, after = plane, []
            for cell, state in zip(self.cells, states, strict=True):
                x = cell(x, state)
                after.append(x)
            states = after
            scores.append(self.score(x))
        return torch.cat(scores, dim=1), states
