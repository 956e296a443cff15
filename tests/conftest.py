"""What every test shares: one thread (the tensors are small), and random numbers that repeat."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, settings

torch.set_num_threads(1)

# for `make mutants`, to which a failure is enough: without a search for the smallest one
settings.register_profile("mutants", phases=[Phase.generate], database=None, derandomize=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``gpu`` (``pytest -m gpu`` runs no others) need one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
