"""The shop's views."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import threading
from pathlib import Path

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

import manyhands as mh
from manyhands.server import Events, HandshakeRefused, WebSocketClosed, websocket

from .models import Item

ROW = "x" * 4000
"""What a row of the report is filled up with, so that no socket takes all of it."""


class Notes:
    """What the views saw, for the tests in the same process."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.begun = threading.Event()
        self.stopped: list[mh.StopReason | None] = []
        self.threads: list[int] = []
        self.failed: list[BaseException] = []
        self.readers: list[Events] = []
        self.gone: list[Events] = []


notes = Notes()


class OrderForm(forms.Form):
    name = forms.CharField(max_length=20)
    number = forms.IntegerField(min_value=1)


def index(request):
    return HttpResponse("hello, " + request.GET.get("who", "you"))


def environ(request):
    """What the application knows of the request."""
    known = {
        name: value
        for name, value in sorted(request.META.items())
        if isinstance(value, str) and value and (name.startswith("HTTP_") or name in NAMES)
    }
    return JsonResponse(known | {"uri": request.build_absolute_uri(), "secure": request.is_secure()})


NAMES = (
    *("CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "REQUEST_METHOD"),
    *("SCRIPT_NAME", "SERVER_PROTOCOL", "wsgi.url_scheme"),
)


@csrf_exempt
def echo(request):
    return HttpResponse(request.body, content_type=request.content_type or "application/octet-stream")


def nothing(request):
    response = HttpResponse(status=204)
    del response["Content-Type"]  # of what
    return response


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


def order(request):
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        messages.success(request, f"{form.cleaned_data['number']} of {form.cleaned_data['name']}")
        return redirect("/order")
    return render(request, "order.html", {"form": form}, status=422 if request.method == "POST" else 200)


@login_required
def mine(request):
    return HttpResponse(f"for {request.user.get_username()}")


@csrf_exempt
@require_POST
def upload(request):
    """What came, and where Django had it meanwhile."""
    found = [
        {
            "field": field,
            "name": file.name,
            "type": file.content_type,
            "size": file.size,
            "digest": hashlib.sha256(file.read()).hexdigest(),
            "kept": type(file).__name__,
        }
        for field, file in sorted(request.FILES.items())
    ]
    return JsonResponse({"files": found, "fields": request.POST.dict()})


@csrf_exempt
@require_POST
def sell(request, item):
    with transaction.atomic():
        get_object_or_404(Item, pk=item)
        Item.objects.filter(pk=item).update(sold=F("sold") + 1)
        return JsonResponse({"sold": Item.objects.get(pk=item).sold})


def rows(request):
    """A report that reads the database as it goes, in one transaction."""
    base = connections["default"]

    def lines():
        try:
            with transaction.atomic():
                for item in Item.objects.order_by("pk").iterator(chunk_size=10):
                    notes.threads.append(threading.get_ident())
                    with base.cursor() as cursor:
                        cursor.execute("SELECT sold FROM shop_item WHERE id = %s", [item.pk])
                        (sold,) = cursor.fetchone()
                    yield f"{item.pk};{item.name};{sold};{ROW}\n"
        except BaseException as error:
            notes.failed.append(error)
            raise

    return StreamingHttpResponse(lines(), content_type="text/csv")


def stream(request):
    return StreamingHttpResponse((f"{request.path} {number}\n" for number in range(5)), content_type="text/plain")


def file(request):
    return FileResponse(Path(__file__).open("rb"), as_attachment=True, filename="views.py")


def memory_file(request):
    return FileResponse(io.BytesIO(b"0123456789" * 1000), content_type="application/octet-stream")


def news(request):
    """A page that is told what there is, as long as it is open."""
    events = Events(on_close=notes.gone.append)
    events.send(f"there are {Item.objects.filter(pk=1).count()}", id="1")
    connection.close()  # or it would be open as long as the page
    notes.readers.append(events)
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=request.GET.dict())


def fail(request):
    raise ValueError("not for the client")


def fail_late(request):
    def pieces():
        yield "good"
        raise ValueError("not for the client either")

    return StreamingHttpResponse(pieces())


def cookies(request):
    response = JsonResponse(dict(sorted(request.COOKIES.items())))
    response.set_cookie("plain", "1")
    response.set_cookie("odd", 'a "b"; c', httponly=True, samesite="Strict")
    response.delete_cookie("old")
    return response


def go(request):
    return redirect(request.build_absolute_uri("/count"))


def long(request):
    """Long enough to be compressed."""
    return HttpResponse("again and again, " * 1000)


@require_GET
def work(request):
    """Works for as long as somebody waits for it."""
    notes.begun.set()
    try:
        while True:
            Item.objects.count()
            mh.check_in()
    except mh.JobStopped as stopped:
        notes.stopped.append(stopped.reason)
        raise


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def query(request):
    """One call of the database that never returns; it is interrupted when nobody waits for it."""
    connection.ensure_connection()
    raw = connection.connection
    raw.create_function("begun", 0, lambda: notes.begun.set() or 1)
    try:
        try:
            with mh.current_job().on_stop(raw.interrupt), connection.cursor() as cursor:
                cursor.execute(ENDLESS)
        except OperationalError:
            mh.check_in()  # raises, if that is why
            raise
    except mh.JobStopped as stopped:
        notes.stopped.append(stopped.reason)
        raise


def talk(request):
    """A conversation about what is in the database."""
    with contextlib.suppress(HandshakeRefused, WebSocketClosed), websocket(request.META) as ws:
        for message in ws:
            ws.send(Item.objects.get(pk=int(message)).name)
    return HttpResponse()  # nobody gets it


async def wait_async(request):
    """A coroutine, which Django runs on a thread of its own: it is told by the request's job."""
    job, task, loop = request.META["manyhands.job"], asyncio.current_task(), asyncio.get_running_loop()
    try:
        with job.on_stop(lambda: loop.call_soon_threadsafe(task.cancel)):
            notes.begun.set()
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        notes.stopped.append(job.reason)
        return HttpResponse(status=499)
