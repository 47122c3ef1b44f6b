"""vLLM behind the interface of a pool (`--engine vllm`)."""
