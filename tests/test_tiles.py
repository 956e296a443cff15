import pytest
import torch

from mvsnet_edu.tiles import cut_into_tiles


@pytest.mark.parametrize("size", [(9, 13), (72, 82), (300, 65), (64, 400), (251, 333)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_tiles_cover_every_pixel_once_and_fit(size, share):
    h, w = size
    most = share * h * w
    tiles = cut_into_tiles(size, lambda window: window[0] * window[1] <= most)
    if not tiles:  # the smallest that are tried keep 40 pixels and see 32 on either side
        assert min(h, 104) * min(w, 104) > most
        return
    covered, columns = torch.zeros(1, h, w), torch.arange(h * w).view(1, h, w)
    for (top, left, height, width), core, inner in tiles:
        assert top % 8 == left % 8 == 0 and top + height <= h and left + width <= w
        assert height * width <= most
        covered[core] += 1
        assert torch.equal(columns[core], columns[:, top : top + height, left : left + width][inner])
    assert (covered == 1).all() and len(tiles) > 1


def test_what_fits_is_not_cut():
    (tile,) = cut_into_tiles((50, 70), lambda window: window == (50, 70))
    assert tile.window == (0, 0, 50, 70) and tile.core == tile.inner == (
        slice(None),
        slice(0, 50),
        slice(0, 70),
    )


@pytest.mark.parametrize("size", [(8, 8), (100, 300)])
def test_where_nothing_fits_there_are_no_tiles(size):
    assert cut_into_tiles(size, lambda window: False) == []


def test_every_tile_sees_32_pixels_around_itself_but_not_beyond_the_map():
    h, w = 150, 260
    tiles = cut_into_tiles((h, w), lambda window: window[0] * window[1] <= h * w / 2)
    assert len(tiles) >= 4
    for (top, left, height, width), (_, rows, columns), _ in tiles:
        assert (top, left) == (max(0, rows.start - 32), max(0, columns.start - 32))
        assert (top + height, left + width) == (min(h, rows.stop + 32), min(w, columns.stop + 32))
