"""The SageMaker wire: InvokeEndpoint, whole and as a response stream, signed with SigV4. The container's protocol is configuration.

`sagemaker/ENDPOINT`. Options of `[provider.sagemaker.options]`: `schema` = openai (vLLM, DJL; the default) or tgi; or `request`, a table in
which $prompt, $system, $messages, $max_tokens, $temperature, $top_p, $stop and $seed are replaced, with `response`, the path to the text
("0.generated_text"); `region`, `headers` (X-Amzn-SageMaker-…). Keys come from the AWS chain: environment, profile, role.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from holynb.engines import aws_frames, codec, openai
from holynb.engines.answer import conclude
from holynb.engines.aws_errors import classify, of_frame
from holynb.engines.aws_hosted import AwsHosted, AwsService
from holynb.engines.classify import malformed
from holynb.engines.finish import Finish, finish
from holynb.engines.hosted import Traits, Wire
from holynb.engines.place import in_path
from holynb.errors import BadSetting, Fault
from holynb.types import Completion, Endpoint, Limits, Request, Secret, Usage

__all__ = ["EventStream", "SageMaker", "body", "classify", "read", "wire"]

TGI = {
    "inputs": "$prompt",
    "parameters": {
        "max_new_tokens": "$max_tokens",
        "temperature": "$temperature",
        "top_p": "$top_p",
        "stop": "$stop",
        "seed": "$seed",
        "details": True,
    },
}
MAX_LINE_BYTES = 4 * 2**20
SERVICE = AwsService("sagemaker", "runtime.sagemaker", always_fips="us-gov-")
#: The end of an answer whose container says nothing of it.
UNSAID = Finish("unknown", "", "unknown")


class SageMaker(AwsHosted):
    """One endpoint of SageMaker runtime."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, wire(endpoint), SERVICE)


def wire(endpoint: Endpoint) -> Wire:
    """The wire of this endpoint's container. Raises BadSetting."""
    options = endpoint.options
    schema, custom = options.get("schema", "openai"), options.get("request")
    if custom is not None and not isinstance(custom, Mapping):
        raise BadSetting("[provider.sagemaker.options] request should be a table, with $prompt where the prompt goes.")
    if schema not in ("openai", "tgi"):
        raise BadSetting("[provider.sagemaker.options] schema is openai or tgi; any other: request and response.")
    template = custom or (TGI if schema == "tgi" else None)
    path = str(options["response"]) if "response" in options else None
    return Wire(
        url,
        headers,
        partial(body, template),
        partial(read, path),
        partial(EventStream, path),
        classify,
        no_limits,
        streams=(aws_frames.CONTENT_TYPE,),
    )


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:
    """The path; the host depends on the region."""
    name = in_path(endpoint.route.model)
    return f"/endpoints/{name}/invocations-response-stream" if request.stream else f"/endpoints/{name}/invocations"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:  # noqa: ARG001 - signed instead
    custom = endpoint.options.get("headers") or {}
    return {**openai.headers(endpoint, None), "accept": "application/json", **{str(k).lower(): str(v) for k, v in custom.items()}}


def body(template: Mapping[str, Any] | None, request: Request, traits: Traits = frozenset()) -> dict[str, Any]:
    """The container's JSON; OpenAI's without a template."""
    if template is None:
        # The endpoint has one model, which its container knows under another name (`-p model=…` where it insists).
        return {k: v for k, v in openai.body(request, traits, "sagemaker").items() if k != "model" or "model" in request.sampling.extra}
    s = request.sampling
    values: dict[str, Any] = {
        "prompt": "\n\n".join(m.content for m in request.messages if m.role != "system"),
        "max_tokens": s.max_tokens,
        "temperature": s.temperature,
        "system": "\n\n".join(m.content for m in request.messages if m.role == "system"),
        "top_p": s.top_p,
        "stop": list(s.stop) or None,
        "seed": s.seed,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
    }
    if "$system" not in str(template) and values["system"]:
        values["prompt"] = f"{values['system']}\n\n{values['prompt']}"
    payload = dict(_fill(template, values))
    if request.stream:
        payload["stream"] = True
    payload.update(s.extra)
    return payload


def _fill(value: Any, values: Mapping[str, Any]) -> Any:
    """The template with its `$name` values replaced; fields whose value is None are left out."""
    if isinstance(value, Mapping):
        return {k: v for k, v in ((k, _fill(v, values)) for k, v in value.items()) if v is not None}
    if isinstance(value, list):
        return [_fill(v, values) for v in value]
    if isinstance(value, str) and value.startswith("$"):
        return values.get(value[1:], value)
    return value


# -- in ------------------------------------------------------------------------------------------------------------------


def read(path: str | None, value: Any) -> Completion:
    """A whole answer: by its path, as OpenAI's, or as TGI's. Raises Fault."""
    if path is None and isinstance(value, Mapping) and ("choices" in value or "error" in value):
        return openai.read(value)
    text = _at(value, path or ("0.generated_text" if isinstance(value, list) else "generated_text"))
    if not isinstance(text, str):
        raise malformed(codec.excerpt(value), f"200, but there is no text at {path or 'generated_text'}")
    first = value[0] if isinstance(value, list) and value else value
    ended, counted = _details(first.get("details") if isinstance(first, Mapping) else None)
    return conclude(codec.mend(text), ended, None, counted)


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            return None
    return value


def _details(details: Any) -> tuple[Finish | None, Usage]:
    """TGI's finish reason and token counts."""
    if not isinstance(details, Mapping):
        return None, Usage()
    prefill = details.get("prefill")
    counted = openai.count(details.get("input_length")) or (len(prefill) if isinstance(prefill, list) and prefill else None)
    return finish(details.get("finish_reason")), Usage(counted, openai.count(details.get("generated_tokens")))


class EventStream(openai.Chat):
    """The reader of a response stream: AWS frames whose payloads hold server-sent events or JSON lines, cut anywhere."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self._path = path
        self._frames = aws_frames.FrameDecoder()
        self._json_lines: bool | None = None  # JSON lines instead of server-sent events; None before the first payload
        self._rest = b""

    def feed(self, data: bytes) -> str | None:
        """The text of the frames that these bytes complete. Raises Fault for a frame that is an error, or broken."""
        text: str | None = None
        for frame in self._frames.feed(data):
            piece = super().feed(self._sse(frame))
            text = piece if text is None else text + (piece or "")
        return text

    def _sse(self, frame: aws_frames.Frame) -> bytes:
        """A frame's payload as server-sent events. Raises Fault for a frame that is an error."""
        if frame.error or frame.status != 200:
            raise of_frame(frame)
        if self._json_lines is None and frame.payload.strip():
            self._json_lines = frame.payload.lstrip().startswith((b"{", b"["))
        return self._lines_to_sse(frame.payload) if self._json_lines else frame.payload

    def _lines_to_sse(self, payload: bytes) -> bytes:
        """The JSON lines that end within these bytes, as server-sent events."""
        *lines, self._rest = (self._rest + payload).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise Fault(
                "server", f"the server sent a line of more than {MAX_LINE_BYTES:,} bytes, which is more than any model writes.", retry=False
            )
        return b"".join(b"data:" + line + b"\n\n" for line in lines if line.strip())

    def end(self) -> Completion:
        """The whole answer. Text found by its path has no finish reason: there the end of the frames ends the answer. Raises Fault."""
        if self._rest.strip():
            super().feed(b"data:" + self._rest + b"\n\n")
        if self._path is not None and self.finish is None:
            self.finish = UNSAID
        return super().end()

    def on_event(self, name: str, chunk: Any) -> str | None:
        """The text of OpenAI's chunk, of TGI's token, or at the path."""
        if isinstance(chunk, Mapping) and self._path is not None:
            openai.raise_error(chunk, failed=name == "error")
            text = _at(chunk, self._path)
            return text if isinstance(text, str) else None
        if isinstance(chunk, Mapping) and isinstance(token := chunk.get("token"), Mapping):
            if self.finish is not None:
                return None  # a second answer in one body
            ended, counted = _details(chunk.get("details"))
            if chunk.get("generated_text") is not None or ended:  # the last token has the whole text beside it
                self.finish, self.usage = ended or self.finish or UNSAID, counted
            return None if token.get("special") else str(token.get("text") or "")
        return super().on_event(name, chunk)


def no_limits(headers: Mapping[str, str]) -> Limits | None:  # noqa: ARG001 - as every wire is asked
    """None: this server sends no quota headers."""
    return None
