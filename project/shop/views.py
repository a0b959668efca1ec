"""The shop's views: customers push jobs, and a page shows what becomes of them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.forms import Form
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from jobify_django import QueueFull, queue
from jobify_django.ordering import ORDERS
from project.shop import orders
from project.shop.forms import BURSTS, BurstForm, TuneForm
from project.shop.picture import picture
from project.shop.tasks import track_visit
from project.shop.till import till

# Looking


@require_GET
@ensure_csrf_cookie
def board(request: HttpRequest) -> HttpResponse:
    """The page that shows the queue live."""
    bands = sorted(settings.JOBIFY["PRIORITIES"].items(), key=lambda band: -band[1])
    context = {
        "bands": bands,
        "bursts": BURSTS,
        "orders": ORDERS,
        "demo": settings.JOBIFY,
        "stats": queue("default").stats(),
    }
    return render(request, "shop/board.html", context)


@require_GET
@never_cache
def state(request: HttpRequest) -> HttpResponse:
    """The numbers behind the page, as JSON."""
    return JsonResponse(picture())


# Shopping


@require_POST
async def checkout(request: HttpRequest) -> HttpResponse:
    """Place an order. A queue that stays full becomes 503 with ``Retry-After``, by the app's middleware."""
    order = request.POST.get("order") or orders.new_order()
    await orders.place(order)
    return JsonResponse({"order": order}, status=202)


@require_POST
def visit(request: HttpRequest) -> HttpResponse:
    """Count a page view, if there is room for it; the page does not depend on it."""
    try:
        track_visit.using(timeout=0).push(request.POST.get("page", "/"))
    except QueueFull:
        till.skipped_visits += 1
    return HttpResponse(status=204)


@require_POST
async def burst(request: HttpRequest) -> HttpResponse:
    """Let a crowd check out within seconds, and tell how it went once the last one is through."""
    form = BurstForm(request.POST)
    if not form.is_valid():
        return _invalid(form)
    crowd = form.cleaned_data["checkouts"]
    through, refused = await orders.burst(crowd, seconds=max(2, crowd / 200))
    return _done(request, {"through": through, "refused": refused})


# Tuning. In the demo anybody may; in a project the admin asks for the permission.


@require_POST
def tune(request: HttpRequest) -> HttpResponse:
    """Change live values of the queue."""
    form = TuneForm(request.POST)
    if not form.is_valid() or not form.changes():
        return _invalid(form)
    queue("default").tune(**form.changes(), actor=_actor(request))  # type: ignore[arg-type]
    return _done(request, picture())


@require_POST
def reset(request: HttpRequest) -> HttpResponse:
    """Give the live values back to the settings."""
    queue("default").reset(actor=_actor(request))
    return _done(request, picture())


@require_POST
def pause(request: HttpRequest) -> HttpResponse:
    """Start no more jobs."""
    queue("default").pause(actor=_actor(request))
    return _done(request, picture())


@require_POST
def resume(request: HttpRequest) -> HttpResponse:
    """Start jobs again."""
    queue("default").resume(actor=_actor(request))
    return _done(request, picture())


def _actor(request: HttpRequest) -> str:
    return request.user.get_username() or "a visitor"


def _done(request: HttpRequest, answer: dict[str, Any]) -> HttpResponse:
    # The page's script asks for JSON. Without the script its forms work too, and lead back to the page.
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        return redirect("shop:board")
    return JsonResponse(answer)


def _invalid(form: Form) -> HttpResponse:
    problems = [f"{name}: {' '.join(map(str, errors))}" for name, errors in form.errors.items()]
    return JsonResponse({"error": " ".join(problems) or "Give workers, maxsize or order."}, status=400)
