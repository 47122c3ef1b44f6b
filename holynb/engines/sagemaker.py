"""The SageMaker wire: InvokeEndpoint, whole and as a response stream, signed with SigV4. What the container speaks is configuration.

`sagemaker/ENDPOINT`. Options of `[provider.sagemaker.options]`: `schema` = openai (vLLM, DJL; the default) or tgi; or `request`, a table in which
$prompt, $system, $messages, $max_tokens, $temperature, $top_p, $stop and $seed are replaced, with `response`, the path to the text
("0.generated_text"); `region`, `headers` (X-Amzn-SageMaker-…). Keys come from the AWS chain: environment, profile, role.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from holynb.engines import codec, openai
from holynb.engines.answer import checked
from holynb.engines.classify import ErrorDetail, malformed, readable, to_fault
from holynb.engines.hosted import Hosted, Traits, Wire, encoded
from holynb.errors import BadKey, BadRoute, BadSetting, Fault
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
STREAM = "application/vnd.amazon.eventstream"
FINISH: Mapping[str, str] = {"eos_token": "stop", "stop_sequence": "stop"}

#: AWS's names of errors as statuses that mean the same.
_STATUSES: Mapping[str, int] = {
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "ModelNotReadyException": 503,
    "ServiceUnavailable": 503,
    "InternalFailure": 500,
    "InternalDependencyException": 503,
    "UnrecognizedClientException": 401,
    "InvalidSignatureException": 401,
    "SignatureDoesNotMatch": 401,
    "ExpiredTokenException": 401,
    "MissingAuthenticationTokenException": 401,
    "InvalidClientTokenId": 401,
    "AccessDeniedException": 401,
    "IncompleteSignature": 401,
    "InternalStreamFailure": 500,
    "ModelStreamError": 500,
}


class SageMaker(Hosted):
    """One endpoint of SageMaker runtime."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, wire(endpoint))
        self._session: Any = None
        self._region = str(endpoint.options.get("region") or "")

    async def ready(self, notice: Callable[[str], None]) -> None:  # noqa: ARG002 - as every engine is asked
        """Find region and keys; that may ask the machine's metadata service. Raises BadKey, BadSetting, BadRoute."""
        if self._session is None:
            await asyncio.to_thread(self._find)

    def _find(self) -> None:
        try:
            from botocore.session import get_session
        except ImportError as exc:
            raise BadRoute("sagemaker/… signs its requests with botocore: pip install 'holynb[aws]'") from exc
        session = get_session()
        region = self._region or session.get_config_variable("region")
        if not region:
            raise BadSetting("sagemaker/… needs a region: set AWS_DEFAULT_REGION, or [provider.sagemaker.options] region in config.toml.")
        if session.get_credentials() is None:
            raise BadKey("No AWS keys were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and run the cell again.")
        self._region, self._session = region, session

    async def _head(self, url: str, body: bytes, secret: Secret | None) -> list[tuple[bytes, bytes]]:
        """Signed: in another thread, since keys of a role are fetched anew when they expire."""
        from botocore.exceptions import BotoCoreError

        await self.ready(lambda text: None)
        try:
            return encoded(await asyncio.to_thread(self._signed, url, body, self._wire.headers(self.endpoint, secret)))
        except BotoCoreError as exc:
            raise Fault("auth", f"the AWS keys cannot be used: {exc}", stops=True) from exc

    def _signed(self, url: str, body: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        credentials = self._session.get_credentials().get_frozen_credentials()
        # What proxies may change stays unsigned.
        signed = {k: v for k, v in headers.items() if k not in ("user-agent", "accept-encoding")}
        request = AWSRequest("POST", url, headers=signed, data=body)
        SigV4Auth(credentials, "sagemaker", self._region).add_auth(request)
        return {**headers, **{k.lower(): v for k, v in request.headers.items()}}

    def _url(self, request: Request) -> str:
        base = self.endpoint.base_url or f"https://runtime.sagemaker.{self._region}.amazonaws.com"
        return base + self._wire.url(self.endpoint, request)

    def _tell(self, fault: Fault, secret: Secret | None) -> None:
        """The server's words about a signature may repeat what was signed."""
        super()._tell(fault, secret)
        if self._session is not None:
            known = self._session.get_credentials()
            for value in (known.secret_key, known.token, known.access_key):
                if value:
                    fault.message = Secret(value).mask(fault.message)
                    fault.raw = Secret(value).mask(fault.raw) if fault.raw else fault.raw
            fault.args = (fault.message,)


def wire(endpoint: Endpoint) -> Wire:
    """The wire of this endpoint's container. Raises BadSetting."""
    options = endpoint.options
    schema, own = options.get("schema", "openai"), options.get("request")
    if own is not None and not isinstance(own, Mapping):
        raise BadSetting("[provider.sagemaker.options] request should be a table, with $prompt where the prompt goes.")
    if schema not in ("openai", "tgi"):
        raise BadSetting(f"[provider.sagemaker.options] schema is openai or tgi, not {schema!r}; any other: request and response.")
    template = own or (TGI if schema == "tgi" else None)
    path = str(options["response"]) if "response" in options else None
    return Wire(
        url, headers, partial(body, template), partial(read, path), partial(EventStream, path), classify, no_limits, streams=(STREAM,)
    )


# -- out -----------------------------------------------------------------------------------------------------------------


def url(endpoint: Endpoint, request: Request) -> str:
    """The path; the host depends on the region."""
    name = quote(endpoint.route.model, safe="")
    return f"/endpoints/{name}/invocations-response-stream" if request.stream else f"/endpoints/{name}/invocations"


def headers(endpoint: Endpoint, secret: Secret | None) -> dict[str, str]:  # noqa: ARG001 - signed instead
    own = endpoint.options.get("headers") or {}
    return {**openai.headers(endpoint, None), "accept": "application/json", **{str(k).lower(): str(v) for k, v in own.items()}}


def body(template: Mapping[str, Any] | None, request: Request, known: Traits = frozenset()) -> dict[str, Any]:
    """The container's JSON: OpenAI's without a template."""
    if template is None:
        # The endpoint has one model, and its container another name for it than ours (`-p model=…` where it insists).
        return {k: v for k, v in openai.body(request, known).items() if k != "model" or "model" in request.sampling.extra}
    s = request.sampling
    words: dict[str, Any] = {
        "prompt": "\n\n".join(m.content for m in request.messages if m.role != "system"),
        "max_tokens": s.max_tokens,
        "temperature": s.temperature,
        "system": "\n\n".join(m.content for m in request.messages if m.role == "system"),
        "top_p": s.top_p,
        "stop": list(s.stop) or None,
        "seed": s.seed,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
    }
    if "$system" not in str(template) and words["system"]:
        words["prompt"] = f"{words['system']}\n\n{words['prompt']}"
    said = dict(_filled(template, words))
    if request.stream:
        said["stream"] = True
    said.update(s.extra)
    return said


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """The template with its words; a field whose word was not said is left out."""
    if isinstance(value, Mapping):
        return {k: v for k, v in ((k, _filled(v, words)) for k, v in value.items()) if v is not None}
    if isinstance(value, list):
        return [_filled(v, words) for v in value]
    if isinstance(value, str) and value.startswith("$"):
        return words.get(value[1:], value)
    return value


# -- in ------------------------------------------------------------------------------------------------------------------


def read(path: str | None, value: Any) -> Completion:
    """A whole answer: by its path, as OpenAI's, or as TGI's. Raises Fault."""
    if path is None and isinstance(value, Mapping) and ("choices" in value or "error" in value):
        return openai.read(value)
    found = _at(value, path or ("0.generated_text" if isinstance(value, list) else "generated_text"))
    if not isinstance(found, str):
        raise malformed(codec.dumps(value), f"200, but there is no text at {path or 'generated_text'}")
    first = value[0] if isinstance(value, list) and value else value
    finish, counted = _details(first.get("details") if isinstance(first, Mapping) else None)
    return checked(Completion(codec.mend(found), finish or "unknown", None, counted))


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            return None
    return value


def _details(said: Any) -> tuple[str | None, Usage]:
    """TGI's: finish reason and counts."""
    if not isinstance(said, Mapping):
        return None, Usage()
    reason, prefill = said.get("finish_reason"), said.get("prefill")
    counted = openai.count(said.get("input_length")) or (len(prefill) if isinstance(prefill, list) and prefill else None)
    return FINISH.get(reason, reason) if isinstance(reason, str) else None, Usage(counted, openai.count(said.get("generated_tokens")))


class EventStream(openai.Chat):
    """The fold of a response stream: frames of AWS's binary format, whose parts hold server-sent events or JSON lines, cut anywhere."""

    def __init__(self, path: str | None = None) -> None:
        from botocore.eventstream import EventStreamBuffer

        super().__init__()
        self._path = path
        self._frames = EventStreamBuffer()
        self._lines: bool | None = None  # JSON lines instead of events; not known before the first part
        self._rest = b""

    def feed(self, data: bytes) -> str | None:
        """The text of the frames that these bytes complete. Raises Fault for a frame that is an error, or broken."""
        from botocore.eventstream import ParserError

        text: str | None = None
        try:
            self._frames.add_data(data)
            for frame in self._frames:
                piece = super().feed(self._part(frame.to_response_dict()))
                text = piece if text is None else text + (piece or "")
        except ParserError as exc:
            raise Fault("server", f"the response stream is broken: {exc}") from exc
        return text

    def _part(self, frame: Mapping[str, Any]) -> bytes:
        kind, payload = frame["headers"].get(":exception-type") or frame["headers"].get(":error-code"), bytes(frame["body"])
        if kind or frame["status_code"] != 200:
            raise classify(frame["status_code"], {"x-amzn-errortype": str(kind or "")}, payload)
        if self._lines is None and payload.strip():
            self._lines = payload.lstrip().startswith((b"{", b"["))
        return self._events(payload) if self._lines else payload

    def _events(self, payload: bytes) -> bytes:
        """The JSON lines that end within these bytes, as events."""
        *lines, self._rest = (self._rest + payload).split(b"\n")
        return b"".join(b"data:" + line + b"\n\n" for line in lines if line.strip())

    def end(self) -> Completion:
        """The whole answer. Text found by its path has no finish reason; there, the end of AWS's frames is the answer's."""
        if self._rest.strip():
            super().feed(b"data:" + self._rest + b"\n\n")
        if self._path is not None and self.finish_reason is None:
            self.finish_reason = "unknown"
        return super().end()

    def take(self, name: str, chunk: Any) -> str | None:
        """OpenAI's chunk, TGI's token, or the text at the path."""
        if isinstance(chunk, Mapping) and self._path is not None:
            found = _at(chunk, self._path)
            return found if isinstance(found, str) else None
        if isinstance(chunk, Mapping) and isinstance(token := chunk.get("token"), Mapping):
            finish, counted = _details(chunk.get("details"))
            if chunk.get("generated_text") is not None or finish:
                self.finish_reason, self.usage = finish or "unknown", counted
            return None if token.get("special") else str(token.get("text") or "")
        return super().take(name, chunk)


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The Fault for a reply that is not 200. A ModelError is judged by what the container said."""
    try:
        value = codec.loads(body)
    except ValueError:
        value = None
    value = value if isinstance(value, Mapping) else {"Message": readable(body)}
    kind = headers.get("x-amzn-errortype", "").split(":")[0] or str(value.get("__type", "")).rpartition("#")[2] or _in_xml(body)
    message = value.get("OriginalMessage") or value.get("Message") or value.get("message") or ""
    status = openai.count(value.get("OriginalStatusCode")) or _STATUSES.get(kind, status)
    return to_fault(status, ErrorDetail(str(message), "", kind), headers, body)


def _in_xml(body: bytes) -> str:
    """The code of an error in the older format, which AWS's front doors still send."""
    found = re.search(rb"<Code>(\w+)</Code>", body)
    return found.group(1).decode() if found else ""


def no_limits(headers: Mapping[str, str]) -> Limits | None:  # noqa: ARG001 - as every wire is asked
    """This server says nothing of quotas in its headers."""
    return None
