"""The routes of the gateway."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from json import dumps
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from expunge.core.extras import require
from expunge.core.limits import KIB
from expunge.serve.access import Access
from expunge.serve.backends import Backend
from expunge.serve.bodies import Asked, DryRun, conversation, read_chat, read_completion, read_json
from expunge.serve.bodies import validated as read
from expunge.serve.dialogue import Dialogue
from expunge.serve.door import Door, told
from expunge.serve.faults import Fault
from expunge.serve.holding import Holding
from expunge.serve.policy import policy

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

    Route = Callable[[Request], Awaitable[Response]]

SHORT = 32 * KIB
"""A body that is read at once; a longer one would hold up the others."""

PAGE = 1000
"""Most targets of one list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """All that answers requests.

    Attributes:
        dialogue: Guards around the model.
        holding: The targets.
        access: Who may come in.
        settings: What the policy says beside guards and model.
    """

    dialogue: Dialogue
    holding: Holding
    access: Access
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def backend(self) -> Backend:
        """The model."""
        return self.dialogue.backend


def build(gateway: Gateway, **limits: Any) -> Door:
    """The gateway as an ASGI application; every route is behind the door.

    Args:
        gateway: What answers.
        **limits: ``most_bytes`` and ``seconds`` of `Door`.
    """
    require("fastapi", extra="serve")
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.backend.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan,
                  redirect_slashes=False)  # fmt: skip
    _add_routes(app, gateway)

    async def unknown(_: Any, error: Exception) -> "Response":
        status = getattr(error, "status_code", 404)
        message = "This path takes no such method." if status == 405 else "There is no such path."
        return _json(Fault(status, "no_such_route", message).body, status)

    app.add_exception_handler(HTTPException, unknown)
    return Door(app, gateway.access, **limits)


def routes(gateway: Gateway) -> "list[tuple[str, str, Route]]":
    """Method, path and what answers there."""
    asking, holding = _Asking(gateway), _Targets(gateway)
    return [
        ("POST", "/v1/chat/completions", asking.chat),
        ("POST", "/v1/completions", asking.complete),
        ("GET", "/v1/models", asking.models),
        ("GET", "/health", asking.health),
        ("POST", "/admin/targets", holding.add),
        ("GET", "/admin/targets", holding.listed),
        ("DELETE", "/admin/targets/{id}", holding.revoke),
        ("POST", "/admin/dry-run", holding.dry_run),
        ("GET", "/admin/policy", holding.policy),
    ]


def _add_routes(app: "FastAPI", gateway: Gateway) -> None:
    from starlette.routing import Route

    for method, path, answer in routes(gateway):
        app.router.routes.append(Route(path, _closed(answer), methods=[method]))


class _Asking:
    """What callers ask."""

    def __init__(self, gateway: Gateway) -> None:
        self._dialogue, self._backend = gateway.dialogue, gateway.backend

    async def chat(self, request: "Request") -> "Response":
        """``POST /v1/chat/completions``."""
        return await self._answered(request, read_chat)

    async def complete(self, request: "Request") -> "Response":
        """``POST /v1/completions``."""
        return await self._answered(request, read_completion)

    async def models(self, _: "Request") -> "Response":
        """``GET /v1/models``."""
        return _json({"object": "list", "data": await self._backend.models()})

    async def health(self, _: "Request") -> "Response":
        """``GET /health``; says nothing of guards or targets."""
        return _json({"status": "ok"})

    async def _answered(self, request: "Request", reader: Callable[[bytes], Asked]) -> "Response":
        from starlette.responses import StreamingResponse

        raw = await request.body()
        asked = reader(raw) if len(raw) < SHORT else await to_thread.run_sync(reader, raw)
        asked = asked.by(request.state.caller)
        answer = await self._dialogue.talk(asked)
        if asked.streams:
            headers = {"cache-control": "no-store"}
            return StreamingResponse(
                answer.events(), media_type="text/event-stream", headers=headers
            )
        return _json(answer.whole)


class _Targets:
    """What the admin asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._holding = gateway, gateway.holding

    async def add(self, request: "Request") -> "Response":
        """``POST /admin/targets``."""
        raw = await request.body()
        id = await to_thread.run_sync(lambda: self._holding.add(read_json(raw)))
        return _json({"id": id})

    async def listed(self, request: "Request") -> "Response":
        """``GET /admin/targets``; by pages, with ``after`` and ``limit``."""
        after, limit = request.query_params.get("after"), request.query_params.get("limit")
        most = PAGE if limit is None else _whole(limit, "limit")
        found = await to_thread.run_sync(lambda: self._holding.listed(after, min(most, PAGE)))
        return _json(found)

    async def revoke(self, request: "Request") -> "Response":
        """``DELETE /admin/targets/{id}``."""
        id = str(request.path_params["id"])
        await to_thread.run_sync(lambda: self._holding.revoke(id))
        return _json({"id": id, "revoked": True})

    async def dry_run(self, request: "Request") -> "Response":
        """``POST /admin/dry-run``: which gates would fire; the model is not asked."""
        raw = await request.body()
        fired = await to_thread.run_sync(lambda: self._fired(read_json(raw)))
        return _json({"fired": fired})

    async def policy(self, _: "Request") -> "Response":
        """``GET /admin/policy``."""
        gateway = self._gateway
        told = await to_thread.run_sync(
            lambda: policy(
                gateway.dialogue.pipeline, gateway.backend, self._holding, gateway.settings
            )
        )
        return _json(told)

    def _fired(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        exchange = conversation(read(DryRun, body).messages)
        best: dict[tuple[str, str], float] = {}
        for _, hit in self._gateway.dialogue.pipeline.hits(exchange):
            place = (hit.target, hit.gate)
            best[place] = max(float(hit.score), best.get(place, float("-inf")))
        return [
            {"target": target, "gate": gate, "score": score}
            for (target, gate), score in best.items()
        ]


def _closed(answer: "Route") -> "Route":
    """A route whose errors become JSON before anybody else sees, and logs, what they say."""

    @wraps(answer)
    async def safe(request: "Request") -> "Response":
        try:
            return await answer(request)
        except Exception as error:
            fault = told(error)
            response = _json(fault.body, fault.status)
            response.headers.update(fault.headers)
            return response

    return safe


def _json(value: Any, status: int = 200) -> "Response":
    from starlette.responses import Response

    content = dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    headers = {"cache-control": "no-store"}
    return Response(content, status, headers, media_type="application/json")


def _whole(text: str, param: str) -> int:
    if not (text.isascii() and text.isdigit()) or not int(text[:9]) > 0:
        raise Fault(400, "invalid_value", f"{param}: a whole number above 0.", param)
    return int(text[:9])
