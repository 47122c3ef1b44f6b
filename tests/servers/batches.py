"""Servers that speak the batch APIs of OpenAI, Azure, Anthropic and Gemini: files, limits, partial results, expiry, lost replies.

Time is told: nothing is done before `work` says so. What was submitted is counted by its rows, so that one which comes twice is seen.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers.exact import Asked, read_request
from servers.threaded import Threaded

#: Usage of every answer: in, of it cached, out.
USAGE = (100, 40, 20)


@dataclass
class Job:
    """One batch as its server holds it. `state`: working, ended, expired, cancelled, or failed with `error`."""

    id: str
    rows: list[dict[str, Any]]
    key: str = ""
    state: str = "working"
    created: float = field(default_factory=time.time)
    results: dict[str, tuple[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    path: str = ""


@dataclass
class Batches(Threaded):
    """`with Batches("openai") as server:`. answer: of a row's body and id, its text, or (status, error); most: rows enqueued at once.

    usages: of rows of Anthropic's by their ids, where it is not USAGE. hook: called when a request came, was done, was answered. lose: of the next submissions, how many are done without a reply; `late`: how many are neither done nor answered; at_once: a batch is done when it is submitted.
    """

    vendor: str
    answer: Callable[[dict[str, Any], str], Any] = lambda body, id_: f"answer {id_}"
    most: int = 10**9
    most_rows: int = 10**9
    lose: int = 0
    late: int = 0
    at_once: bool = False
    port: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    usages: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: Callable[[str, Any], tuple[int, Any] | None] = lambda what, value: None
    hook: Callable[[str, Asked], None] = lambda when, asked: None

    # -- for tests -----------------------------------------------------------------------------------------------------
    @property
    def base(self) -> str:
        root = f"http://127.0.0.1:{self.port}"
        return {"openai": f"{root}/v1", "azure": f"{root}/openai/v1"}.get(self.vendor, root)

    def submitted(self) -> Counter[str]:
        """How often each prompt was taken into a batch that was not refused."""
        return Counter(_prompt(row) for job in self.jobs.values() if job.state != "failed" for row in job.rows)

    def work(self, id_: str | None = None, share: float = 1.0, end: str = "ended") -> None:
        """Do a share of the rows of a batch, or of all that are not done, and end it."""
        for job in [j for j in self.jobs.values() if j.state == "working" and id_ in (None, j.id)]:
            done = job.rows[: round(len(job.rows) * share)]
            for row in done:
                cid = _id(row)
                if cid not in job.results:
                    job.results[cid] = _result(self.answer(_body(row), cid))
            job.state = end

    # -- HTTP ----------------------------------------------------------------------------------------------------------
    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self.accept, "127.0.0.1", self.port, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (asked := await read_request(reader, 0)) is not None:
            self.asked.append(asked)
            submits = asked.method == "POST" and bool(re.search(r"/batches$|:batchGenerateContent$", urlsplit(asked.path).path))
            if submits and self.late:
                self.late -= 1
                writer.close()
                return
            before = len(self.jobs)
            self.hook("came", asked)
            status, body = self.handle(asked)
            self.hook("done", asked)
            if submits and len(self.jobs) > before:
                if self.at_once:
                    self.work()
                if self.lose:
                    self.lose -= 1
                    writer.close()
                    return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            kind = b"application/octet-stream" if isinstance(body, bytes) else b"application/json"
            writer.write(b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(data)) + data)
            await writer.drain()
            self.hook("answered", asked)

    def handle(self, asked: Asked) -> tuple[int, Any]:
        parts = urlsplit(asked.path)
        path, query = parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}
        if not any(h in asked.headers for h in ("authorization", "api-key", "x-api-key", "x-goog-api-key")):
            return 401, {"error": {"message": "no key", "type": "invalid_request_error", "code": "invalid_api_key"}}
        speak = {"openai": self._openai, "azure": self._openai, "anthropic": self._anthropic, "gemini": self._gemini}[self.vendor]
        return speak(asked, path, query)

    def _full(self, n: int) -> bool:
        return n + sum(len(j.rows) for j in self.jobs.values() if j.state == "working") > self.most

    # -- OpenAI, Azure -------------------------------------------------------------------------------------------------
    def _openai(self, asked: Asked, path: str, query: dict[str, str]) -> tuple[int, Any]:
        path = path.removeprefix("/openai").removeprefix("/v1")
        if asked.method == "POST" and path == "/chat/completions":
            return 200, _completion(json.loads(asked.body), self.answer(json.loads(asked.body), "direct"))
        if asked.method == "POST" and path == "/files":
            name = f"file-{len(self.files)}"
            self.files[name] = _multipart(asked)
            return 200, {
                "id": name,
                "object": "file",
                "bytes": len(self.files[name]),
                "created_at": int(time.time()),
                "filename": "x.jsonl",
                "purpose": "batch",
                "status": "processed",
            }
        if match := re.fullmatch(r"/files/([\w-]+)(/content)?", path):
            if match[1] not in self.files:
                return 404, {"error": {"message": "No such File object", "type": "invalid_request_error"}}
            return 200, self.files[match[1]] if match[2] else {"id": match[1], "object": "file", "status": "processed", "purpose": "batch"}
        if asked.method == "POST" and path == "/batches":
            return self._create_openai(json.loads(asked.body))
        if match := re.fullmatch(r"/batches/([\w-]+)(/cancel)?", path):
            job = self.jobs.get(match[1])
            if job is None:
                return 404, {"error": {"message": "No batch found", "type": "invalid_request_error"}}
            if match[2] and job.state == "working":
                job.state = "cancelled"
            return 200, self._as_openai(job)
        if path == "/batches":
            listed = sorted(self.jobs.values(), key=lambda j: -j.created)
            if "after" in query:
                listed = listed[[j.id for j in listed].index(query["after"]) + 1 :]
            page = listed[: min(int(query.get("limit", 20)), 100)]
            return 200, {
                "object": "list",
                "data": [self._as_openai(j) for j in page],
                "has_more": len(listed) > len(page),
                "first_id": None,
                "last_id": None,
            }
        return 404, {"error": {"message": f"Invalid URL ({asked.method} {asked.path})", "type": "invalid_request_error"}}

    def _create_openai(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        rows = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines() if line.strip()]
        if (refusal := self.refuse("batch", rows)) is not None:
            return refusal
        assert wanted["completion_window"] == "24h", wanted
        assert all(row["url"] == wanted["endpoint"] and row["method"] == "POST" for row in rows)
        job = Job(f"batch_{len(self.jobs)}", rows, (wanted.get("metadata") or {}).get("holynb", ""), path=wanted["endpoint"])
        if self._full(len(rows)):
            job.state = "failed"
            job.error = {
                "code": "token_limit_exceeded",
                "message": "Enqueued token limit reached for gpt-6-luna",
                "line": None,
                "param": None,
            }
        elif len({r["custom_id"] for r in rows}) != len(rows) or len(rows) > self.most_rows:
            job.state, job.error = (
                "failed",
                {"code": "invalid", "message": "duplicate custom_id, or too many rows", "line": 1, "param": None},
            )
        self.jobs[job.id] = job
        return 200, self._as_openai(job)

    def _as_openai(self, job: Job) -> dict[str, Any]:
        status = {"working": "in_progress", "ended": "completed"}.get(job.state, job.state)
        out = {
            "id": job.id, "object": "batch", "endpoint": job.path, "errors": None, "input_file_id": "file-0", "completion_window": "24h",
            "status": status, "created_at": int(job.created), "metadata": {"holynb": job.key}, "output_file_id": None, "error_file_id": None,
            "request_counts": {"total": len(job.rows), "completed": sum(k == "ok" for k, _ in job.results.values()), "failed": sum(k == "error" for k, _ in job.results.values())},
        }  # fmt: skip
        if job.error is not None:
            out["errors"] = {"object": "list", "data": [job.error]}
        if job.state in ("ended", "expired", "cancelled"):
            good, bad = [], []
            for row in reversed(job.rows):
                kind, value = job.results.get(row["custom_id"], (job.state, None))
                line = {"id": f"req_{row['custom_id']}", "custom_id": row["custom_id"], "error": None, "response": None}
                if kind == "ok":
                    good.append({**line, "response": {"status_code": 200, "request_id": "r", "body": _completion(row["body"], value)}})
                elif kind == "error":
                    bad.append({**line, "response": {"status_code": value[0], "request_id": "r", "body": value[1]}})
                else:
                    bad.append({**line, "error": {"code": f"batch_{kind}", "message": f"This request could not be executed: {kind}"}})
            for name, lines in (("output_file_id", good), ("error_file_id", bad)):
                if lines:
                    out[name] = f"{job.id}-{name[:3]}"
                    self.files[out[name]] = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
        return out

    # -- Anthropic -----------------------------------------------------------------------------------------------------
    def _anthropic(self, asked: Asked, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if asked.headers.get("anthropic-version") is None:
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "anthropic-version is required"}}
        if asked.method == "POST" and path == "/v1/messages/batches":
            rows = json.loads(asked.body)["requests"]
            if (refusal := self.refuse("batch", rows)) is not None:
                return refusal
            if self._full(len(rows)):
                return 429, {"type": "error", "error": {"type": "rate_limit_error", "message": "too many requests are in the batch queue"}}
            if bad := [r["custom_id"] for r in rows if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", r["custom_id"])]:
                return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": f"custom_id: {bad[0]}"}}
            job = Job(f"msgbatch_{len(self.jobs)}", rows)
            self.jobs[job.id] = job
            return 200, self._as_anthropic(job)
        if path == "/v1/messages/batches":
            listed = sorted(self.jobs.values(), key=lambda j: -j.created)
            if "after_id" in query:
                listed = listed[[j.id for j in listed].index(query["after_id"]) + 1 :]
            page = listed[: int(query.get("limit", 20))]
            return 200, {
                "data": [self._as_anthropic(j) for j in page],
                "has_more": len(listed) > len(page),
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        if match := re.fullmatch(r"/v1/messages/batches/(\w+)(/cancel|/results)?", path):
            job = self.jobs.get(match[1])
            if job is None:
                return 404, {"type": "error", "error": {"type": "not_found_error", "message": "batch not found"}}
            if match[2] == "/cancel" and job.state == "working":
                job.state = "cancelled"
            if match[2] == "/results":
                if job.state == "working":
                    return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "it has not ended"}}
                return 200, b"".join(json.dumps(self._anthropic_row(job, r)).encode() + b"\n" for r in reversed(job.rows))
            return 200, self._as_anthropic(job)
        return 404, {"type": "error", "error": {"type": "not_found_error", "message": asked.path}}

    def _as_anthropic(self, job: Job) -> dict[str, Any]:
        ended, iso = job.state != "working", time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(job.created))
        kinds = Counter(self._anthropic_row(job, r)["result"]["type"] for r in job.rows) if ended else Counter()
        return {
            "id": job.id, "type": "message_batch", "processing_status": "ended" if ended else "in_progress", "created_at": iso, "expires_at": iso,
            "request_counts": {"processing": 0 if ended else len(job.rows), **{k: kinds[k] for k in ("succeeded", "errored", "canceled", "expired")}},
            "ended_at": iso if ended else None, "archived_at": None, "cancel_initiated_at": None,
            "results_url": f"https://elsewhere.example/{job.id}/results" if ended else None,
        }  # fmt: skip

    def _anthropic_row(self, job: Job, row: dict[str, Any]) -> dict[str, Any]:
        kind, value = job.results.get(row["custom_id"], (job.state, None))
        if kind == "ok":
            n, cached, out = USAGE
            usage = {"input_tokens": n - cached, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}
            message = {
                "id": "msg_1", "type": "message", "role": "assistant", "model": row["params"]["model"], "content": [{"type": "text", "text": value}],
                "stop_reason": "end_turn", "stop_sequence": None,
                "usage": {**self.usages.get(row["custom_id"], usage), "output_tokens": out, "service_tier": "batch"},
            }  # fmt: skip
            return {"custom_id": row["custom_id"], "result": {"type": "succeeded", "message": message}}
        if kind == "error":
            return {"custom_id": row["custom_id"], "result": {"type": "errored", "error": value[1]}}
        return {"custom_id": row["custom_id"], "result": {"type": "canceled" if kind == "cancelled" else "expired"}}

    # -- Gemini --------------------------------------------------------------------------------------------------------
    def _gemini(self, asked: Asked, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path.endswith(":batchGenerateContent"):
            if len(asked.body) > 20 * 2**20:
                return 400, {
                    "error": {
                        "code": 400,
                        "message": "Request payload size exceeds the limit: 20971520 bytes.",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            batch = json.loads(asked.body)["batch"]
            rows = batch["inputConfig"]["requests"]["requests"]
            if (refusal := self.refuse("batch", rows)) is not None:
                return refusal
            if self._full(len(rows)):
                return 429, {
                    "error": {"code": 429, "message": "You exceeded your current quota of enqueued tokens.", "status": "RESOURCE_EXHAUSTED"}
                }
            job = Job(f"batches/b{len(self.jobs)}", rows, batch["displayName"], path=path.partition("/models/")[2].partition(":")[0])
            self.jobs[job.id] = job
            return 200, self._as_gemini(job)
        name = path.removeprefix("/v1beta/").removeprefix("/v1/")
        if name == "batches":
            listed = sorted(self.jobs.values(), key=lambda j: -j.created)
            start = int(query.get("pageToken") or 0)
            page = listed[start : start + int(query.get("pageSize", 10))]
            more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(listed) else {}
            return 200, {"operations": [self._as_gemini(j) for j in page], **more}
        job = self.jobs.get(name.removesuffix(":cancel"))
        if job is None:
            return 404, {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}
        if name.endswith(":cancel"):
            job.state = "cancelled" if job.state == "working" else job.state
            return 200, {}
        return 200, self._as_gemini(job)

    def _as_gemini(self, job: Job) -> dict[str, Any]:
        state = {"working": "RUNNING", "ended": "SUCCEEDED"}.get(job.state, job.state.upper())
        iso = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(job.created))
        about = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch", "model": f"models/{job.path}", "displayName": job.key,
            "createTime": iso, "updateTime": iso, "state": f"BATCH_STATE_{state}", "name": job.id,
            "batchStats": {"requestCount": str(len(job.rows)), "successfulRequestCount": str(len(job.results))},
        }  # fmt: skip
        out: dict[str, Any] = {"name": job.id, "metadata": about}
        if job.state == "ended":
            inline = {"inlinedResponses": [self._gemini_row(job, r) for r in job.rows]}
            about["output"] = {"inlinedResponses": inline}
            out |= {"done": True, "response": {"@type": "type.googleapis.com/x.GenerateContentBatchOutput", "inlinedResponses": inline}}
        return out

    def _gemini_row(self, job: Job, row: dict[str, Any]) -> dict[str, Any]:
        kind, value = job.results.get(row["metadata"]["key"], ("error", (500, {"error": {"code": 13, "message": "no result"}})))
        if kind == "error":
            return {"metadata": row["metadata"], "error": value[1]["error"]}
        n, cached, out = USAGE
        return {
            "metadata": row["metadata"],
            "response": {
                "candidates": [{"content": {"role": "model", "parts": [{"text": value}]}, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {
                    "promptTokenCount": n,
                    "cachedContentTokenCount": cached,
                    "candidatesTokenCount": out,
                    "totalTokenCount": n + out,
                },
                "modelVersion": job.path,
            },
        }


def _result(answer: Any) -> tuple[str, Any]:
    return ("error", answer) if isinstance(answer, tuple) else ("ok", answer)


def _completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    n, cached, out = USAGE
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "service_tier": "default",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": n, "completion_tokens": out, "total_tokens": n + out, "prompt_tokens_details": {"cached_tokens": cached}},
    }  # fmt: skip


def _id(row: dict[str, Any]) -> str:
    return row["custom_id"] if "custom_id" in row else row["metadata"]["key"]


def _body(row: dict[str, Any]) -> dict[str, Any]:
    return next(row[name] for name in ("body", "params", "request") if name in row)


def _prompt(row: dict[str, Any]) -> str:
    body = _body(row)
    return body["messages"][-1]["content"] if "messages" in body else body["contents"][-1]["parts"][0]["text"]


def _multipart(asked: Asked) -> bytes:
    """The file of a form, whose other fields have to be there."""
    boundary = asked.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    parts = [p.partition(b"\r\n\r\n") for p in asked.body.split(b"--" + boundary)[1:-1]]
    fields = {re.search(rb'name="([^"]+)"', head)[1].decode(): data.removesuffix(b"\r\n") for head, _, data in parts}
    assert fields["purpose"] == b"batch", fields
    return fields["file"]
