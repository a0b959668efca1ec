"""``QueueFullMiddleware``: a full queue becomes "503, come back in a moment"."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _

from jobify_django.exceptions import QueueFull
from jobify_django.log import get_log, quoted

logger = get_log("jobify.push")


class QueueFullMiddleware(MiddlewareMixin):
    """Turn a ``QueueFull`` that a view did not catch into a 503 response with ``Retry-After``.

    The body is JSON for a client that prefers it, and plain text otherwise. It says nothing of the job.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a view that raised ``QueueFull``; anything else is left alone."""
        if not isinstance(exception, QueueFull):
            return None
        logger.warning(
            "refused %s: queue %r is full (%d of %d)",
            quoted(request.path),
            exception.queue,
            exception.depth,
            exception.maxsize,
        )
        detail = _("The service is busy. Try again in a moment.")
        response: HttpResponse
        if request.get_preferred_type(["text/plain", "application/json"]) == "application/json":
            body = {"detail": detail, "queue": exception.queue, "retry_after": exception.retry_after}
            response = JsonResponse(body, status=503)
        else:
            response = HttpResponse(detail, content_type="text/plain; charset=utf-8", status=503)
        response["Retry-After"] = str(exception.retry_after)
        # Said above, as what it is; django.request would call it an error of the server.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response
