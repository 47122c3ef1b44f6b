"""`python -m vllm.entrypoints.openai.api_server`: says each prompt back, word by word.

VLLM_FAKE: `oom` and `port` end the start as vLLM does; `slow` takes a second for its weights. In a prompt `!crash` kills the
server, `!engine` its engine's process, `!long` is too long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

ROLE = "(APIServer pid={pid}) INFO 11-23 06:42:21 "
CORE = "(EngineCore pid={pid}) INFO 11-23 06:43:19 "
FAIL = "(EngineCore pid={pid}) ERROR 11-23 06:43:19 [core.py:1100] "
counts = {"running": 0, "in": 0, "out": 0, "stop": 0, "abort": 0}
CHILD = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True); time.sleep(600)"


def log(line: str) -> None:
    print(line.format(pid=os.getpid()), file=sys.stderr, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag in ("--model", "--uds", "--served-model-name", "--dtype", "--reasoning-parser"):
        parser.add_argument(flag)
    for flag in ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size"):
        parser.add_argument(flag, type=int, default=1)
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--gpu-memory-utilization", type=float)
    return parser.parse_args()


def load(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """What happens before it listens; the process of its engine, which has a worker of its own."""
    log(ROLE + "[api_utils.py:286] non-default args: {{'model': 'x'}}")
    log(ROLE + "[model.py:733] Resolved architecture: LlamaForCausalLM")
    fails = os.environ.get("VLLM_FAKE", "")
    engine = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    assert engine.stdout is not None
    engine.stdout.readline()
    for share in (0, 45, 100):
        log(f"Loading safetensors checkpoint shards: {share:3d}% Completed | 0/1 [00:00<?, ?it/s]")
        time.sleep(0.4 if fails == "slow" else 0)
    if fails == "oom":
        log(FAIL + "EngineCore failed to start.")
        log(FAIL + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.50 GiB.")
        log("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}")
        engine.kill()
        sys.exit(1)
    if fails == "port":
        log("OSError: [Errno 98] Address already in use")
        sys.exit(1)
    log(CORE + "[kv_cache_utils.py:2327] CPU KV cache size: 262,144 tokens, Maximum concurrency for 512 tokens per request: 512.00x")
    return engine


def page(name: str) -> str:
    mine = f'engine="0",model_name="{name}"'
    return "\n".join(
        [
            "# HELP vllm:num_requests_running Number of requests in model execution batches.",
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{mine}}} {counts['running']}.0",
            f"vllm:num_requests_waiting{{{mine}}} 0.0",
            f'vllm:num_requests_waiting_by_reason{{{mine},reason="capacity"}} 7.0',
            f"vllm:kv_cache_usage_perc{{{mine}}} 0.25",
            f"vllm:prompt_tokens_total{{{mine}}} {counts['in']}.0",
            f"vllm:generation_tokens_total{{{mine}}} {counts['out']}.0",
            'vllm:cache_config_info{block_size="128",engine="0",kv_cache_memory_bytes="1048576",kv_cache_size_tokens="1024",num_gpu_blocks="8"} 1.0',
            "",
        ]
    )


class Server:
    """Its HTTP, over raw streams: chunked, and closed after each answer."""

    def __init__(self, options: argparse.Namespace, engine: subprocess.Popen[bytes]) -> None:
        self.options, self.engine = options, engine

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = next((int(v.partition(":")[2]) for v in head.split("\r\n") if v.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(size)
        try:
            await self.answer(head.split()[1], body, writer)
        except ConnectionError:
            counts["abort"] += 1
        finally:
            writer.close()

    async def answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/v1/") and body:
            await self.chat(json.loads(body), writer)
            return
        text = {
            "/health": "",
            "/metrics": page(self.options.served_model_name),
            "/v1/models": json.dumps({"data": [{"id": self.options.served_model_name, "max_model_len": self.options.max_model_len}]}),
        }.get(path)
        self.whole(writer, 404 if text is None else 200, text or "")
        await writer.drain()

    async def chat(self, payload: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        words = payload["messages"][-1]["content"].split()
        if payload["model"] != self.options.served_model_name:
            self.error(writer, 404, f"The model `{payload['model']}` does not exist.")
            return
        if "!long" in words:
            self.error(writer, 400, "This model's maximum context length is 512 tokens. However, your request has 900 input tokens.")
            return
        counts["running"] += 1
        counts["in"] += len(words)
        try:
            reply = [word async for word in self.words(words)] if not payload.get("stream") else []
            if payload.get("stream"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                await self.stream(words, payload, writer)
            else:
                self.whole(
                    writer, 200, json.dumps(self.body({"message": {"role": "assistant", "content": " ".join(reply)}}, "stop", words))
                )
            await writer.drain()
        finally:
            counts["running"] -= 1

    async def words(self, words: list[str]) -> AsyncIterator[str]:
        for word in words:
            if word == "!crash":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "!engine":
                self.engine.kill()
                log(
                    "(APIServer pid={pid}) ERROR 11-23 06:50:00 [async_llm.py:700] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."
                )
                os._exit(1)
            await asyncio.sleep(float(os.environ.get("VLLM_FAKE_STEP", "0.005")))
            counts["out"] += 1
            yield word

    async def stream(self, words: list[str], payload: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.chunk(writer, {"delta": {"role": "assistant", "content": ""}}, None)
        async for word in self.words(words):
            self.chunk(writer, {"delta": {"content": f"{word} "}}, None)
            await writer.drain()
        self.chunk(writer, {"delta": {"content": ""}}, "stop")
        if payload.get("stream_options", {}).get("include_usage"):
            self.event(writer, json.dumps({**self.body({}, None, words), "choices": []}))
        self.event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    def body(self, choice: dict[str, Any], finish: str | None, words: list[str]) -> dict[str, Any]:
        used = {"prompt_tokens": len(words), "completion_tokens": len(words), "total_tokens": 2 * len(words)}
        return {
            "id": "x",
            "model": self.options.served_model_name,
            "choices": [{"index": 0, **choice, "finish_reason": finish}],
            "usage": used,
        }

    def chunk(self, writer: asyncio.StreamWriter, choice: dict[str, Any], finish: str | None) -> None:
        self.event(
            writer, json.dumps({"model": self.options.served_model_name, "choices": [{"index": 0, **choice, "finish_reason": finish}]})
        )

    def event(self, writer: asyncio.StreamWriter, data: str) -> None:
        text = f"data: {data}\n\n".encode()
        writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")

    def error(self, writer: asyncio.StreamWriter, status: int, message: str) -> None:
        self.whole(writer, status, json.dumps({"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}))

    def whole(self, writer: asyncio.StreamWriter, status: int, text: str) -> None:
        body = text.encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)


async def main() -> None:
    args = parse_args()
    server = Server(args, load(args))
    listening = await asyncio.start_unix_server(server.handle, args.uds)
    log(ROLE + f"[entry.py:140] Starting vLLM server on unix:{args.uds}")
    log(ROLE + "[launcher.py:195] Route: /metrics, Methods: GET")
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
