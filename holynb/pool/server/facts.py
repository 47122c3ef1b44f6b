"""The routes that tell of a pool and its model and write no answer: models, health, metrics, tokens of a text. Knows the service."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from holynb.pool.server.api import ApiRequest, parse_request
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.effort import with_thinking
from holynb.pool.server.http import client_of, read_json
from holynb.pool.server.messages import parse_messages
from holynb.pool.server.metrics import render
from holynb.pool.server.service import Service
from holynb.poolfields import is_token_id

__all__ = ["FactRoutes"]


class FactRoutes:
    """The handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - a handler's signature
        identity = self._service.identity
        names = dict.fromkeys((identity.name, identity.model))
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.check_model(name)
        return JSONResponse(self._model(name))

    async def usage(self, request: Request) -> Response:
        """What the token that asks has used today and may use: its own line and nobody else's."""
        return JSONResponse(await self._service.clients.usage(client_of(request)))

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        await self._service.clients.refresh()
        health = self._service.health()
        return JSONResponse(health, 200 if health["state"] == "ready" else 503)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        service = self._service
        await service.clients.refresh()
        return PlainTextResponse(
            render(service.metrics, service.state, service.stats(), service.clients.figures()), media_type="text/plain; version=0.0.4"
        )

    async def tokenize(self, request: Request) -> Response:
        """The ids of a text (`prompt`, or llama.cpp's `content`) or of a chat (`messages`), as a request would have them."""
        body = await self._body(request, ("prompt", "content", "messages", "add_special_tokens", "add_generation_prompt"))
        tokenizer = await self._service.wait_ready()
        text = body.get("prompt") if body.get("prompt") is not None else body.get("content")
        if body.get("messages") is not None:
            prompted = body.get("add_generation_prompt") is not False
            parsed = ApiRequest(chat=True, messages=parse_messages(body["messages"]), template={"add_generation_prompt": prompted})
        elif isinstance(text, str) and text:
            parsed = ApiRequest(chat=False, prompts=(text,), special=body.get("add_special_tokens") is not False)
        else:
            raise ApiError(400, "prompt must be text, and not empty; messages are the tokens of a chat.", param="prompt")
        (ids,) = await self._service.encode(parsed, tokenizer)
        return JSONResponse({"tokens": list(ids), "count": len(ids), "max_model_len": self._service.max_len})

    async def apply_template(self, request: Request) -> Response:
        """The text that the model reads for a chat, as llama.cpp's servers tell it."""
        body = await self._body(request, ("messages", "add_generation_prompt", "chat_template_kwargs", "reasoning_effort"))
        tokenizer = await self._service.wait_ready()
        parsed = with_thinking(parse_request(body, chat=True), tokenizer)
        (ids,) = await self._service.encode(parsed, tokenizer)
        return JSONResponse({"prompt": tokenizer.decode(ids, special=True)})

    async def detokenize(self, request: Request) -> Response:
        """The text of `tokens`, special ones included."""
        body = await self._body(request, ("tokens",))
        tokenizer = await self._service.wait_ready()
        ids = body.get("tokens")
        if not isinstance(ids, list) or not all(is_token_id(i) and i < tokenizer.size for i in ids):
            raise ApiError(400, f"tokens must be a list of token ids of this model, below {tokenizer.size}.", param="tokens")
        text = tokenizer.decode(ids, special=True)
        return JSONResponse({"prompt": text, "content": text})

    def check_model(self, name: str) -> None:
        """Raises ApiError 404 where this pool is called otherwise."""
        identity = self._service.identity
        if not identity.matches(name):
            names = " or ".join(dict.fromkeys((identity.name, identity.model)))
            raise ApiError(404, f"The model {name} does not exist here; this pool serves {names}.", param="model", code="model_not_found")

    async def _body(self, request: Request, fields: tuple[str, ...]) -> dict[str, Any]:
        """The request's object. Raises ApiError 400, naming a field that it may not have."""
        body = await read_json(request)
        if not isinstance(body, dict):
            raise ApiError(400, "The body must be a JSON object.")
        unknown = next((name for name in body if name not in ("model", *fields)), None)
        if unknown is not None:
            raise ApiError(
                400,
                f"{unknown!r:.40} is no field of {request.url.path}; it has {', '.join(fields)}.",
                param=unknown,
                code="unsupported_parameter",
            )
        self.check_model(str(body.get("model") or ""))
        return body

    def _model(self, name: str) -> dict[str, Any]:
        root = self._service.identity.model  # vLLM's field: names of one root are one model
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "holynb-pool",
            "root": root,
            "max_model_len": self._service.max_len,
        }
