"""An answer that is an error, in OpenAI's shape. Knows no requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holynb.errors import Portable

__all__ = ["ApiError", "error_body"]


class ApiError(Portable):
    """An answer in OpenAI's error shape. `status` is HTTP's; `headers` go along with it."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers


def error_body(error: ApiError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
