"""What TROPT's optimisers need in the tests: a tiny random language model, and Python 3.11's leave to import them.

Below Python 3.12 `tropt.loss` cannot be imported, since a slice as a dataclass's default was taken for mutable there. `allow_slices` makes `dataclasses` take it; all
of TROPT itself stays as it is.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any


def allow_slices() -> None:
    """Let a dataclass have a slice as a default, as from Python 3.12 on."""
    if sys.version_info >= (3, 12):
        return
    original: Any = dataclasses._get_field  # type: ignore[attr-defined]

    def get_field(cls: type, name: str, *rest: Any) -> Any:
        default = cls.__dict__.get(name)
        if isinstance(default, slice):
            setattr(cls, name, dataclasses.field(default_factory=lambda: default))
        return original(cls, name, *rest)

    dataclasses._get_field = get_field  # type: ignore[attr-defined]


def make_model(path: Path) -> None:
    """A language model of one layer with random weights, and a tokenizer of letters, in a directory as `from_pretrained` takes it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted({*pre_tokenizers.ByteLevel.alphabet()})
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", "<pad>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    fast.save_pretrained(path)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(path)
