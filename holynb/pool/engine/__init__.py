"""The engine of one rank: continuous batching, paged KV cache, CUDA graphs, the decoder."""
