"""The golden tiny Qwen3 as vLLM's CPU kernels can run it, with a chat template."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

#: vLLM's CPU attention knows no head narrower than this.
HEAD = 32
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def servable(golden: Path, folder: Path) -> Path:
    """The golden language model with heads of 32 instead of 16 values, exactly as before.

    Value i of a half turns with frequency base^(-2i/16) = base^(-2(2i)/32): it moves to place 2i
    of the wider half, the places between are zero. Queries and keys grow by sqrt(2), so that their
    mean square over 32 places is what it was over 16; the key's norm takes the factor back, the
    query's keeps it, for attention divides by sqrt(32) now.
    """
    shutil.copytree(golden, folder)
    config = json.loads((golden / "config.json").read_text())
    narrow = config["head_dim"]
    assert narrow * 2 == HEAD
    state = {k: v.float() for k, v in load_file(golden / "model.safetensors").items()}
    widened = {key: _wide(key, value, narrow) for key, value in state.items()}
    save_file(widened, folder / "model.safetensors", metadata={"format": "pt"})
    config |= {"head_dim": HEAD, "dtype": "float32", "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((golden / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"chat_template": CHAT}))
    return folder


def _wide(key: str, value: Tensor, narrow: int) -> Tensor:
    half = narrow // 2
    places = torch.cat([torch.arange(half) * 2, torch.arange(half) * 2 + HEAD // 2])
    part = key.split(".")[-2]
    if part in {"q_proj", "k_proj", "v_proj"}:
        heads = value.view(-1, narrow, value.shape[1])
        wide = torch.zeros(len(heads), HEAD, value.shape[1])
        wide[:, places] = heads * (1.0 if part == "v_proj" else math.sqrt(2))
        return wide.view(-1, value.shape[1])
    if part == "o_proj":
        heads = value.view(len(value), -1, narrow)
        wide = torch.zeros(len(value), heads.shape[1], HEAD)
        wide[:, :, places] = heads
        return wide.view(len(value), -1)
    if part in {"q_norm", "k_norm"}:
        wide = torch.ones(HEAD)
        wide[places] = value / (math.sqrt(2) if part == "k_norm" else 1.0)
        return wide
    return value


def configured(folder: Path, model: Path, url: str, name: str, key: str) -> Path:
    """A configuration whose pack holds this language model, served at a URL."""
    import inference

    pack = folder / "pack"
    shutil.copytree(Path(inference.__file__).parent / "demo_pack", pack)
    _with_report(pack, model)
    (folder / "key").write_text(key)
    config = folder / "config.toml"
    config.write_text(
        f"""
[storage]
data_dir = "{folder / "data"}"
[packs.findings]
path = "{pack}"
[report]
enabled = true
backend = "vllm"
pack = "findings"
endpoints = ["{url}"]
model = "{name}"
api_key_file = "key"
dtype = "float32"
max_tokens = 200
"""
    )
    return config


def _with_report(pack: Path, model: Path) -> None:
    """A pack with a [report] section; the connector's files are not opened here."""
    import dataclasses

    from inference import packs
    from inference.manifest import ModelFiles
    from inference.report.pack_section import ReportSection

    shutil.copytree(model, pack / "language_model")
    for file in ("connector.json", "connector.safetensors"):
        (pack / file).write_text("{}")
    source = Path(packs.__file__).parent / "report" / "prompt_default.json"
    shutil.copy(source, pack / "prompt.json")
    section = ReportSection(
        connector=ModelFiles("connector.json", "connector.safetensors"),
        language_model="language_model",
        prompt="prompt.json",
    )
    manifest = dataclasses.replace(packs.load_manifest(pack), report=section)
    extra = [f"language_model/{one.name}" for one in (pack / "language_model").iterdir()]
    packs.write_manifest(pack, manifest, extra)
