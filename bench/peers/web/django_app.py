"""Two Django applications: ``hello``, and ``page``, which Django's own templates render."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.template import engines  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from bench.peers.web.page import HELLO, cells

TEMPLATE = """<!doctype html>
<table>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
"""


def say(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HELLO, content_type="text/plain")


def show(request: HttpRequest) -> HttpResponse:
    return HttpResponse(template.render({"rows": cells()}))


urlpatterns = [path("", say), path("page", show)]
settings.configure(
    SECRET_KEY="of a benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
hello = get_wsgi_application()
template = engines["django"].from_string(TEMPLATE)


def page(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    answer: Iterable[bytes] = hello({**environ, "PATH_INFO": "/page"}, start_response)
    return answer
