"""A stand-in for vLLM, with its command line, its log, its pages, its processes and its ways to fail. Written from runs of vLLM 0.32."""
