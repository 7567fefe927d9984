"""How refusals and errors become answers: one form for people's routes, the protocol's own below /v2."""

import sys
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Scope

from pixelwise.errors import PixelwiseError, out_of_memory
from pixelwise.serve.refusals import Refusal, content, refusal_of
from pixelwise.serve.service import service_of

CODES = {404: "not_found", 405: "wrong_method", 400: "bad_request"}


def answer_to(problem: Refusal, scope: Scope, names: Mapping[str, str]) -> JSONResponse:
    """Return the answer that refuses a request."""
    body = content(problem, scope["path"], names)
    return JSONResponse(body, problem.status_code, headers=dict(problem.headers or {}))


async def refused(request: Request, problem: Exception) -> JSONResponse:
    """Answer an error that a client, or the operator, can do something about."""
    return answer_to(_as_refusal(request, problem), request.scope, service_of(request).names)


async def failed(request: Request, problem: Exception) -> JSONResponse:
    """Answer an error of our own: the operator gets the traceback, the client a sentence."""
    if out_of_memory(problem):
        refusal = Refusal(503, "no_memory", "The server has not enough memory for this now.", "Try later.", again=10)
    elif isinstance(problem, OSError) and problem.errno is not None:
        traceback.print_exception(problem, file=sys.stderr)
        refusal = Refusal(503, "system", f"The system refused: {problem.strerror}.", "Tell the server's operator.")
    else:
        traceback.print_exception(problem, file=sys.stderr)
        refusal = Refusal(500, "internal", "The server made a mistake.", "Tell the server's operator.")
    return answer_to(refusal, request.scope, service_of(request).names)


def _as_refusal(request: Request, problem: Exception) -> Refusal:
    if isinstance(problem, Refusal):
        return problem
    if isinstance(problem, PixelwiseError):
        return refusal_of(problem)
    if isinstance(problem, RequestValidationError):
        status = 400 if request.url.path.startswith("/v2") else 422
        said = "; ".join(map(_said, problem.errors()[:5]))
        return Refusal(status, "wrong_request", f"The request is not as it should be: {said}.", "See /docs.")
    assert isinstance(problem, HTTPException)
    code = CODES.get(problem.status_code, "refused")
    refusal = Refusal(problem.status_code, code, f"{problem.detail}.", "See /docs.")
    # Which methods there are, for one.
    refusal.headers = problem.headers
    return refusal


def _said(error: Any) -> str:
    place = ".".join(str(part) for part in error.get("loc", ()) if part not in ("body", "query", "path"))
    return f"{place}: {error.get('msg', '')}" if place else str(error.get("msg", ""))
