"""A form beside a figure, for readers with a kernel: change an argument, and Python makes the figure anew."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from mvsnet_edu.errors import InputError
from mvsnet_edu.figures.figure import Figure

if TYPE_CHECKING:
    from ipywidgets import VBox, Widget

__all__ = ["STILL", "live"]

#: While this environment variable is set, no form is made: the builder of the book sets it, for its pages.
STILL = "MVSNET_EDU_STILL_FIGURES"

Choices = Union[range, "tuple[float, float]", "tuple[float, float, float]", Sequence[Any], Mapping[str, Any]]


def live(function: Callable[..., Figure], **controls: Choices) -> Figure | VBox:
    """Put a form over a figure whose controls are arguments that only the kernel can follow.

    Args:
        function: makes the figure. Each of the ``controls`` is an argument of it with a default, where the
            control starts. ``functools.partial`` fixes what the reader shall not change.
        **controls: what each argument may be: a ``range`` of whole numbers; (first, last) or (first, last,
            step) for other numbers; a list of choices, or a dict of them by label; [False, True] to tick.

    Returns:
        The form, in Jupyter. Where there is no kernel to ask, as in the built book: the figure at the start.

    Raises:
        InputError: a control is no argument with a default, or ipywidgets is not installed.

    >>> from mvsnet_edu.figures import loss_explorer
    >>> live(loss_explorer, interval=(0.5, 5.0), reach=range(1, 9)).kind
    'loss'
    """
    starts = {name: _default(function, name) for name in controls}
    if not _has_kernel():
        return function(**starts)
    try:
        from ipywidgets import HBox, Layout, VBox, interactive_output
    except ImportError:
        raise InputError('Live figures need ipywidgets: pip install "mvsnet_edu[figures]".') from None
    from IPython.display import display

    widgets = {name: _widget(name, choices, starts[name]) for name, choices in controls.items()}
    output = interactive_output(lambda **values: display(function(**values)), widgets)
    return VBox([HBox([*widgets.values()], layout=Layout(flex_flow="row wrap")), output])


def _default(function: Callable[..., Figure], name: str) -> Any:
    parameters = inspect.signature(function).parameters
    if name not in parameters or parameters[name].default is inspect.Parameter.empty:
        raise InputError(f"The control {name!r} needs an argument of this name with a default.")
    return parameters[name].default


def _has_kernel() -> bool:
    """Whether this is a kernel whose reader can move a control."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel") and STILL not in os.environ


def _widget(name: str, choices: Choices, start: Any) -> Widget:
    """The control that fits the choices; a slider acts when it is let go, for a figure may take a second."""
    from ipywidgets import Checkbox, Dropdown, FloatSlider, IntSlider, Layout

    label = {"description": name.replace("_", " "), "style": {"description_width": "initial"}, "value": start}
    slider = {**label, "continuous_update": False, "layout": Layout(width="24em", max_width="100%")}
    if isinstance(choices, range):
        return IntSlider(min=choices[0], max=choices[-1], step=choices.step, **slider)
    if isinstance(choices, tuple):
        low, high, step = (*choices, (choices[1] - choices[0]) / 20)[:3]
        return FloatSlider(min=low, max=high, step=step, **slider)
    if all(isinstance(choice, bool) for choice in choices):
        return Checkbox(indent=False, **label)
    options = list(choices.items()) if isinstance(choices, Mapping) else list(choices)
    return Dropdown(options=options, **label)
