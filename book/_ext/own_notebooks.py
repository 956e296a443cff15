"""Each chapter offers its notebook: a copy beside the page; on Colab and Binder if all is public.

`book_repository` in `_config.yml` is the one place that names the repository. While it is empty, no button
shows and the copies are the sources. With an address each copy has a cell that fetches and installs the rest.
Colab opens the copies, from the branch `gh-pages` where the book is published; Binder opens the sources.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from myst_nb.core import render
from sphinx.application import Sphinx

INSTALL = '''\
# Fetch the book's package and data where they are not at hand, as on Colab; elsewhere this does nothing.
import os
import subprocess
import sys
from pathlib import Path

if not any((p / "data" / "still_life").is_dir() for p in (Path.cwd(), *Path.cwd().parents)):
    if not Path("mvsnet-edu").exists():
        subprocess.run(["git", "clone", "-q", "--depth", "1", "{repository}", "mvsnet-edu"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "./mvsnet-edu[notebooks]"], check=True)
    os.chdir("mvsnet-edu/book")
'''


def install_cell(repository: str) -> dict[str, Any]:
    source = INSTALL.replace("{repository}", repository)
    cell = {"cell_type": "code", "id": "install", "metadata": {}, "execution_count": None, "outputs": []}
    return {**cell, "source": source.strip().splitlines(keepends=True)}


def is_notebook(app: Sphinx, pagename: str) -> bool:
    return pagename in app.env.found_docs and app.env.doc2path(pagename).endswith(".ipynb")


def offer_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Point a page's download button to the copy beside it, and add the launch buttons."""
    if not is_notebook(app, pagename):
        return
    for group in context["header_buttons"]:
        for button in group.get("buttons", ()):
            if button.get("label") == "download-source-button":
                button["url"] = f"{pagename.rpartition('/')[2]}.ipynb"
    if app.config.book_repository:
        context["header_buttons"].append(launch_buttons(app.config.book_repository, pagename))


def launch_buttons(repository: str, pagename: str) -> dict[str, Any]:
    name = "/".join(repository.rstrip("/").removesuffix(".git").split("/")[-2:])
    colab = f"https://colab.research.google.com/github/{name}/blob/gh-pages/{pagename}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{pagename}.ipynb"
    links = (("Colab", colab, "logo_colab.png"), ("Binder", binder, "logo_binder.svg"))
    group = {"type": "group", "label": "launch-buttons", "tooltip": "Run this chapter"}
    return {**group, "icon": "fas fa-rocket", "buttons": [launch_button(*link) for link in links]}


def launch_button(text: str, url: str, icon: str) -> dict[str, str]:
    return {"type": "link", "text": text, "tooltip": text, "icon": f"_static/images/{icon}", "url": url}


def copy_notebooks(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    for page in filter(lambda name: is_notebook(app, name), app.env.found_docs):
        notebook = json.loads(Path(app.env.doc2path(page)).read_text(encoding="utf-8"))
        if app.config.book_repository:
            notebook["cells"].insert(1, install_cell(app.config.book_repository))
        target = Path(app.outdir, f"{page}.ipynb")
        target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def spare_executed_outputs() -> None:
    """MyST-NB merges what a cell prints in the notebook that it saves, too, and keeps the rest: lines twice.

    Merged on a copy, the executed notebooks say what the kernel said, so that `make repeat` can compare.
    """
    merge = render.coalesce_streams
    render.coalesce_streams = lambda outputs: merge(copy.deepcopy(outputs))


def setup(app: Sphinx) -> dict[str, bool]:
    spare_executed_outputs()
    app.add_config_value("book_repository", "", "html")
    app.connect("html-page-context", offer_notebook, priority=900)
    app.connect("build-finished", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
