"""The one exception that bad input raises."""

from __future__ import annotations


class InputError(ValueError):
    """A file or value given by the user is unusable; the message names it and says why, in one sentence."""
