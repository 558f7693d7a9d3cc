"""The DMESR model and its trainer: PyTorch only; imports neither Prefect, storage nor vLLM."""
