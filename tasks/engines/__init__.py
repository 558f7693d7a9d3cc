"""The engines behind small protocols: vLLM offline, an OpenAI-compatible endpoint, the sentence encoder."""
