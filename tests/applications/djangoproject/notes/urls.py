"""What is where."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.visit),
    path("token", views.token),
    path("upload", views.upload),
    path("users", views.users),
    path("fails", views.fails),
]
