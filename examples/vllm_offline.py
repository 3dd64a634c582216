"""Generate with vLLM, from a model that fastload finds, brings and proves.

python examples/vllm_offline.py llama-8b "The capital of France is"
"""

from __future__ import annotations

import sys

from vllm import LLM, SamplingParams


def main(model: str, *prompts: str) -> None:
    """Print what ``model`` makes of each of ``prompts``."""
    # A path, org/name, an alias or a folder's name on a mount. The settings are fastload's; all of them have defaults.
    llm = LLM(model=model, load_format="fastload", model_loader_extra_config={"verify": "auto"})
    for output in llm.generate(list(prompts) or ["Hello, my name is"], SamplingParams(max_tokens=32)):
        print(output.prompt + output.outputs[0].text)


if __name__ == "__main__":
    main(*sys.argv[1:])
