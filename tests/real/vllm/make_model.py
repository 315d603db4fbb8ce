#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a tiny random Qwen2 model with a tokenizer of its own: make_model.py FOLDER

Nothing is downloaded and nothing is trained, and the same package versions write the same bytes, so that every
instance started from the folder agrees. Three properties make it fit to test a KV hand-over with:

* Attention outweighs the rest (the scales below), so a lost or foreign KV cache changes the text.
* Few near-ties between the best tokens (a large output layer, float32), so greedy text is the same everywhere.
* Every token it prefers is ASCII and is none of the special ones: an answer has exactly the length asked for, and
  one token is one event of a stream.
"""
import itertools
import json
import os
import pathlib
import string
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

SEED = 8998
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END = "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content or [] -%}{{ part.text }}{%- endfor -%}{%- endif -%}"
    "<|im_end|>\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def make_tokenizer():
    """Byte-level BPE whose merges are a rule instead of a training: every pair of lower-case letters, then a space
    before a letter and before a pair that begins with a vowel."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = string.ascii_lowercase
    space = "\u0120"  # how the byte-level alphabet writes a space
    pairs = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    merges = [tuple(pair) for pair in pairs]
    merges += [(space, letter) for letter in letters]
    merges += [(space, pair) for pair in pairs if pair[0] in "aeiou"]

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = SPECIAL + alphabet + ["".join(merge) for merge in merges]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer


def never_said(tokenizer, size):
    """The tokens that are not ASCII text, control characters and the special ones included."""
    printable = set(string.ascii_letters + string.digits + string.punctuation + " ")
    for token in range(size):
        text = tokenizer.decode([token], skip_special_tokens=False)
        if text in SPECIAL or not set(text) <= printable or not text:
            yield token


def make_weights(model, silent):
    import torch

    generator = torch.Generator().manual_seed(SEED)
    scale = {"q_proj": 1.5, "k_proj": 1.5, "v_proj": 2.0, "o_proj": 2.0, "lm_head": 3.0}
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if "norm" in name:
                weight.fill_(1.0)
                continue
            deviation = weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.1
            for part, factor in scale.items():
                if part in name:
                    deviation *= factor
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
        model.lm_head.weight[silent] = 0.0


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)

    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    size = tokenizer.get_vocab_size()
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id("<|endoftext|>")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END,
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))

    torch.manual_seed(SEED)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=size,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=pad,
            dtype="float32",
        )
    )
    make_weights(model, list(never_said(tokenizer, size)))
    model.to(torch.float32).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end], "pad_token_id": pad}, indent=1))
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(f"{folder}: {millions:.1f} million parameters, {size} tokens")


if __name__ == "__main__":
    main()
