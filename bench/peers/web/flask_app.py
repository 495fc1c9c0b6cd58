"""Two Flask applications: ``hello``, and ``page``, which Jinja renders."""

from __future__ import annotations

from flask import Flask, Response, render_template_string

from bench.peers.web.page import HELLO, cells

TEMPLATE = """<!doctype html>
<table>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>

"""

hello = Flask("hello")
page = Flask("page")


@hello.route("/")
def say() -> Response:
    return Response(HELLO, mimetype="text/plain")


@page.route("/")
def show() -> str:
    return render_template_string(TEMPLATE, rows=cells())
