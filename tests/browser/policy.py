"""A content security policy that allows every page nothing but the site's own files."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

POLICY = "default-src 'self'; form-action 'self'; base-uri 'none'"


@sync_and_async_middleware
def strict(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    async def answer_async(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = await get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    def answer(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer_async if iscoroutinefunction(get_response) else answer
