"""Tiny models with the configs of real ones and random weights, made on the spot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MixtralConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

WORDS = 250
PROMPTS = ["w1 w2 w3 w4", "w77 w5 w200 w8 w13"]


def make_llama(folder: Path, seed: int = 0, **changed: Any) -> Path:
    """A Llama of four layers, in three shards unless its config is ``changed``."""
    sizes: dict[str, Any] = {
        "vocab_size": WORDS + 6,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    return _save(LlamaConfig(**(sizes | changed)), folder, seed)


def make_mixtral(folder: Path, seed: int = 0) -> Path:
    """A mixture of eight experts."""
    config = MixtralConfig(
        vocab_size=WORDS + 6,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=256,
    )
    return _save(config, folder, seed)


def make_bge_m3(folder: Path) -> Path:
    """An embedding model in two shards, and its two heads beside them, as torch saves them."""
    config = XLMRobertaConfig(
        vocab_size=WORDS + 6,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=200,
        type_vocab_size=1,
        bos_token_id=WORDS,
        eos_token_id=WORDS + 1,
    )
    torch.manual_seed(4)
    _save_model(XLMRobertaModel(config).to(torch.bfloat16), folder, max_shard_size="140KB")
    edit_config(folder, architectures=["BgeM3EmbeddingModel"])
    for name, rows in (("sparse_linear", 1), ("colbert_linear", 64)):
        torch.save({"weight": torch.randn(rows, 64), "bias": torch.randn(rows)}, folder / f"{name}.pt")
    return folder


def _save(config: Any, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return _save_model(model, folder, max_shard_size="600KB")


def _save_model(model: PreTrainedModel, folder: Path, *, max_shard_size: str) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that another weight gives other tokens
            parameter.normal_(std=0.3)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """One word, one token."""
    vocabulary = {f"w{n}": n for n in range(WORDS)} | {"<s>": WORDS, "</s>": WORDS + 1, "<unk>": WORDS + 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    fast.save_pretrained(folder)


def make_mistral(folder: Path) -> None:
    """Put a model of a Llama's shape into ``folder``, in the format of Mistral's own: other weights, other names."""
    torch.manual_seed(3)
    shapes = {"tok_embeddings": (WORDS + 6, 128), "output": (WORDS + 6, 128), "norm": (128,)}
    for layer in range(4):
        of_layer = {
            **{f"attention.{name}": (128, 128) for name in ("wq", "wo")},
            **{f"attention.{name}": (64, 128) for name in ("wk", "wv")},
            **{f"feed_forward.{name}": (256, 128) for name in ("w1", "w3")},
            "feed_forward.w2": (128, 256),
            "attention_norm": (128,),
            "ffn_norm": (128,),
        }
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    weights = {f"{name}.weight": torch.randn(shape).to(torch.bfloat16) for name, shape in shapes.items()}
    save_file(weights, folder / "consolidated.safetensors")
    sizes = {"dim": 128, "n_layers": 4, "head_dim": 32, "hidden_dim": 256, "n_heads": 4, "n_kv_heads": 2}
    more = {"norm_eps": 1e-5, "vocab_size": WORDS + 6, "rope_theta": 10000.0, "max_position_embeddings": 256}
    (folder / "params.json").write_text(json.dumps(sizes | more))


def make_adapter(folder: Path) -> Path:
    """A LoRA of :func:`make_llama`."""
    folder.mkdir()
    torch.manual_seed(5)
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    halves = {
        stem.format(layer, half): torch.randn(shape).to(torch.bfloat16)
        for layer in range(4)
        for half, shape in (("A", (8, 128)), ("B", (128, 8)))
    }
    save_file(halves, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def edit_config(folder: Path, **changed: Any) -> None:
    """Change entries of a model's ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
