"""Where the shop's views are."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.views import LoginView
from django.urls import path
from django.views.static import serve

from . import views

urlpatterns = [
    path("", views.index),
    path("environ", views.environ),
    path("echo", views.echo),
    path("nothing", views.nothing),
    path("count", views.count),
    path("order", views.order),
    path("login", LoginView.as_view(template_name="order.html", next_page="/mine")),
    path("mine", views.mine),
    path("upload", views.upload),
    path("sell/<int:item>", views.sell),
    path("rows", views.rows),
    path("stream", views.stream),
    path("file", views.file),
    path("memory-file", views.memory_file),
    path("news", views.news),
    path("fail", views.fail),
    path("fail-late", views.fail_late),
    path("cookies", views.cookies),
    path("go", views.go),
    path("long", views.long),
    path("work", views.work),
    path("query", views.query),
    path("talk", views.talk),
    path("wait-async", views.wait_async),
    path("media/<path:path>", serve, {"document_root": settings.MEDIA_ROOT}),
]
