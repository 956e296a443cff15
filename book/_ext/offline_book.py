"""Make every page self-sufficient: no form that needs a kernel, no script of the network or listed twice."""

from __future__ import annotations

import os
from typing import Any

from sphinx.application import Sphinx

from mvsnet_edu.figures.form import STILL


def keep_local_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Remove thebe (live code, which needs a server) and repeated scripts from a page about to be written."""
    unique = {(script.filename, script.attributes.get("body")): script for script in context["script_files"]}
    context["script_files"] = [script for key, script in unique.items() if "thebe" not in f"{key}".lower()]


def name_no_lists(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Docutils calls a bibliography a list, and its entries no list items: a screen reader counts none."""
    if "body" in context:
        context["body"] = context["body"].replace('<div role="list" class="citation', '<div class="citation')


def setup(app: Sphinx) -> dict[str, bool]:
    os.environ[STILL] = "1"  # the kernels that execute the chapters inherit it
    app.connect("html-page-context", keep_local_scripts, priority=900)
    app.connect("html-page-context", name_no_lists)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
