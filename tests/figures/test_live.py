"""A live form asks a real kernel for the figure; the built book, and a bare Python, get the figure alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from figure_samples import KINDS

from mvsnet_edu import InputError
from mvsnet_edu.figures import Figure, live, loss_explorer
from mvsnet_edu.figures.form import STILL

SETUP = """
import sys
sys.path[:0] = {path!r}
from figure_samples import make
from mvsnet_edu.figures import Figure, live, loss_explorer
"""


class Notebook:
    """Cells run in a kernel; what they show comes back as nbclient stores it."""

    def __init__(self, client: Any):
        self.client = client

    def run(self, source: str) -> list[Any]:
        import nbformat

        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return cell.outputs

    def value(self, expression: str) -> Any:
        import ast

        (output,) = self.run(expression)
        return ast.literal_eval(output["data"]["text/plain"])

    def shown_after(self, state: dict[str, Any], model: str) -> list[str]:
        """What the kernel shows when a front end reports the new state of a control."""
        from jupyter_client.utils import run_sync

        client, shown = self.client.kc, []
        data = {"method": "update", "state": state, "buffer_paths": []}
        message = client.session.msg("comm_msg", {"comm_id": model, "data": data})
        client.shell_channel.send(message)
        while True:
            reply = run_sync(client.get_iopub_msg)(timeout=60)
            if reply["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if reply["msg_type"] == "display_data":
                shown.append(reply["content"]["data"]["text/html"])
            if reply["content"].get("execution_state") == "idle":
                return shown


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    import sys

    import nbformat
    from nbclient import NotebookClient

    client = NotebookClient(nbformat.v4.new_notebook(), timeout=120)
    with client.setup_kernel():
        notebook = Notebook(client)
        notebook.run(SETUP.format(path=[p for p in sys.path if p]))
        yield notebook


SHOWN = "[output['data'].get('text/html', '') for output in form.children[1].outputs]"


def test_moving_a_control_makes_the_figure_anew(notebook: Notebook):
    (shown,) = notebook.run("form = live(loss_explorer, interval=(0.5, 5.0, 0.5), reach=range(1, 9))\nform")
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    assert notebook.value(SHOWN) == [loss_explorer(interval=2.5, reach=6).html]
    notebook.run("interval, reach = form.children[0].children\ninterval.value = 4.0")
    assert notebook.value(SHOWN) == [loss_explorer(interval=4.0, reach=6).html]
    notebook.run("reach.value = 3")
    assert notebook.value(SHOWN) == [loss_explorer(interval=4.0, reach=3).html]


def test_a_message_from_the_reader_s_browser_does_the_same(notebook: Notebook):
    notebook.run("form = live(loss_explorer, interval=(0.5, 5.0, 0.5))")
    model = notebook.value("form.children[0].children[0].model_id")
    assert notebook.shown_after({"value": 1.5}, model) == [loss_explorer(interval=1.5).html]


def test_each_choice_gets_the_control_that_fits(notebook: Notebook):
    notebook.run(
        "def note(**said): return Figure('loss', '', repr(said), '', {})\n"
        "def noted(count=4, share=0.5, of='b', by=2, strict=True):\n"
        "    return note(count=count, share=share, of=of, by=by, strict=strict)\n"
        "form = live(noted, count=range(2, 9, 2), share=(0.0, 1.0), of=['a', 'b'],\n"
        "            by={'one': 1, 'two': 2}, strict=[True, False])\n"
        "controls = form.children[0].children"
    )
    names = notebook.value("[type(control).__name__ for control in controls]")
    assert names == ["IntSlider", "FloatSlider", "Dropdown", "Dropdown", "Checkbox"]
    assert notebook.value("[control.value for control in controls]") == [4, 0.5, "b", 2, True]
    assert notebook.value("[control.description for control in controls]") == [
        "count", "share", "of", "by", "strict"
    ]  # fmt: skip
    assert notebook.value("controls[0].max, controls[0].step, controls[1].step") == (8, 2, 0.05)
    assert notebook.value("list(controls[3].options)") == [("one", 1), ("two", 2)]


def test_an_error_is_shown_and_the_form_goes_on(notebook: Notebook):
    notebook.run(
        "def fragile(gap=2):\n"
        "    return loss_explorer(reach=6 // gap)\n"
        "form = live(fragile, gap=range(0, 4))\n"
        "gap = form.children[0].children[0]"
    )
    notebook.run("gap.value = 0")
    assert "ZeroDivisionError" in str(notebook.run("print(form.children[1].outputs)"))
    notebook.run("gap.value = 3")
    assert notebook.value(SHOWN) == [loss_explorer(reach=2).html]


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_can_be_live(notebook: Notebook, kind: str):
    kinds = sorted(KINDS, key=lambda name: name != kind)  # this one first
    notebook.run(f"def pick(kind={kinds[0]!r}): return make(kind)\nform = live(pick, kind={kinds!r})")
    (html,) = notebook.value(SHOWN)
    assert html.startswith(f'<figure class="mvs-fig mvs-{kind}"')


def test_a_page_without_a_kernel_gets_one_html_output(notebook: Notebook):
    cell = "import os\nos.environ[{!r}] = '1'\nshown = live(loss_explorer, reach=range(1, 9))\nshown"
    try:
        (output,) = notebook.run(cell.format(STILL))
        assert set(output["data"]) == {"text/html", "text/plain"}
        assert output["data"]["text/html"] == loss_explorer().html
    finally:
        notebook.run(f"del os.environ[{STILL!r}]")


def test_without_a_kernel_the_figure_stands_alone():
    assert live(partial(loss_explorer, steps=4), reach=range(1, 9)).html == loss_explorer(steps=4).html


def test_a_control_must_be_an_argument_with_a_default():
    def figure(interval: float, reach: int = 2) -> Figure:
        return loss_explorer(interval=interval, reach=reach)

    with pytest.raises(InputError, match="'interval' needs an argument"):
        live(figure, interval=(1.0, 2.0))
    with pytest.raises(InputError, match="'reech' needs an argument"):
        live(partial(figure, 2.5), reech=range(3))


def test_ipywidgets_is_imported_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    import sys

    assert "ipywidgets" not in sys.modules
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("mvsnet_edu.figures.form._has_kernel", lambda: True)
    with pytest.raises(InputError, match=r'pip install "mvsnet_edu\[figures\]"'):
        live(loss_explorer, reach=range(1, 9))
