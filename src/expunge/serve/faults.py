"""What a client is told instead of an answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core.errors import Exit, ExpungeError, Problems

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
         404: "not_found_error", 405: "invalid_request_error", 408: "timeout_error",
         413: "invalid_request_error", 429: "rate_limit_error", 502: "upstream_error",
         503: "unavailable_error", 504: "upstream_error"}  # fmt: skip
"""Status -> what OpenAI's clients call the error."""


@dataclass(slots=True)
class Fault(Exception):
    """A request that gets no answer.

    Attributes:
        status: Of the response.
        code: Names the reason; stable.
        message: Says it to the client, and to nobody else: it may quote the request.
        param: The field it is about.
        headers: More headers of the response.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        kind = KINDS.get(self.status, "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def fault_of(error: ExpungeError, param: str | None = None) -> Fault:
    """An error of this project as one of a request: what came in was wrong, or this side is."""
    is_theirs = error.exit_code in (Exit.BAD_INPUT, Exit.UNSAFE)
    parts = error.problems if isinstance(error, Problems) else (error,)
    said = " ".join(f"{one.found} Expected: {one.expected} Next: {one.next}" for one in parts[:5])
    return Fault(400 if is_theirs else 503, error.code, said, param)


def broken() -> Fault:
    """Something went wrong on this side; what, is nobody's business but the operator's."""
    return Fault(500, "internal_error", "The gateway could not answer this request.")
