"""Each counts what its process has served, which must be this one request."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token

served = 0


def visit(request: HttpRequest) -> JsonResponse:
    global served
    served += 1
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"], "served": served})


def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request))


def upload(request: HttpRequest) -> JsonResponse:
    global served
    served += 1
    file = request.FILES["file"]
    name = default_storage.save(file.name, file)
    return JsonResponse({"name": name, "size": file.size, "served": served})


def users(request: HttpRequest) -> JsonResponse:
    if request.method == "POST":
        User.objects.create_user(request.POST["name"])
    return JsonResponse({"users": [user.username for user in User.objects.order_by("id")]})


def fails(request: HttpRequest) -> HttpResponse:
    raise LookupError("in Django")
