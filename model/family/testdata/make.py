"""Makes the golden folders of package family: tiny random models as transformers saves them, and what it reads from them.

    python make.py        # torch 2.15.0, transformers 5.23.0, safetensors 0.8.0

golden.json, per folder: the configuration that the built model really has (read from its modules, not from config.json) and, per
parameter, shape and the sha256 of its values as little-endian float32. configs.json: the same for config.json files alone,
in the spellings of transformers 4 and 5. logits.safetensors: the logits of two rows of tokens, computed in float64.
"""
import hashlib, json, os, shutil
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

here = os.path.dirname(os.path.abspath(__file__))


def facts(model):
    c, l = model.config, model.model.layers
    rope = c.rope_parameters
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lin = [getattr(l[0].self_attn if n[0] in "qkvo" else l[0].mlp, n) for n in names]
    windows = [getattr(b.self_attn, "sliding_window", getattr(c, "sliding_window", None)) or 0 for b in l]
    return {
        "architecture": type(model).__name__,
        "vocab": model.model.embed_tokens.weight.shape[0],
        "hidden": c.hidden_size, "inter": lin[4].out_features, "layers": len(l),
        "heads": c.num_attention_heads, "kv_heads": c.num_key_value_heads, "head_dim": l[0].self_attn.head_dim,
        "shapes": [[x.out_features, x.in_features] for x in lin], "bias": [x.bias is not None for x in lin],
        "eps": l[0].input_layernorm.variance_epsilon, "qk_norm": hasattr(l[0].self_attn, "q_norm"),
        "tied": c.tie_word_embeddings, "max_positions": c.max_position_embeddings, "windows": windows,
        "theta": rope["rope_theta"], "rope": rope["rope_type"], "factor": rope.get("factor", 0),
        "low": rope.get("low_freq_factor", 0), "high": rope.get("high_freq_factor", 0),
        "original": rope.get("original_max_position_embeddings", 0),
    }


def digest(t):
    return hashlib.sha256(t.detach().float().contiguous().numpy().astype("<f4").tobytes()).hexdigest()


small = dict(vocab_size=67, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
folders = {
    "llama": (LlamaConfig(**small, rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}, max_position_embeddings=512), torch.bfloat16, {}),
    "llama-bias": (LlamaConfig(**small, attention_bias=True, mlp_bias=True, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}), torch.float32, {}),
    "mistral": (MistralConfig(**small, head_dim=8, sliding_window=5), torch.float16, {"max_shard_size": "8KB"}),
    "qwen2": (Qwen2Config(**small, tie_word_embeddings=True, use_sliding_window=True, sliding_window=7, max_window_layers=1), torch.bfloat16, {}),
    "qwen3": (Qwen3Config(**small, head_dim=10), torch.float32, {"max_shard_size": "30KB"}),
}

golden, logits = {}, {}
for name, (config, dtype, save) in folders.items():
    torch.manual_seed(len(name))
    m = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for n, p in m.named_parameters():
            if p.ndim == 1:
                p.uniform_(0.5, 1.5)  # norms and biases that are not all alike
            else:
                p.normal_(0, 0.2)  # large enough that attention is not uniform
    dir = os.path.join(here, name)
    shutil.rmtree(dir, ignore_errors=True)
    m.save_pretrained(dir, **save)
    m = AutoModelForCausalLM.from_pretrained(dir, dtype="auto")
    g = facts(m)
    g["dtype"] = str(m.dtype).split(".")[1]
    g["tensors"] = {n: {"shape": list(p.shape), "sha256": digest(p)} for n, p in m.named_parameters()}
    golden[name] = g
    tokens = torch.randint(0, config.vocab_size, (2, 13), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        out = AutoModelForCausalLM.from_pretrained(dir, dtype=torch.float64, attn_implementation="eager")(tokens).logits
    logits[name + ".tokens"], logits[name + ".logits"] = tokens.int(), out.flatten(0, 1).float().contiguous()
json.dump(golden, open(os.path.join(here, "golden.json"), "w"), indent=1)
save_file(logits, os.path.join(here, "logits.safetensors"))

s = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
L, M, Q2, Q3 = ({"architectures": [a], "model_type": t, **s} for a, t in [("LlamaForCausalLM", "llama"), ("MistralForCausalLM", "mistral"),
                ("Qwen2ForCausalLM", "qwen2"), ("Qwen3ForCausalLM", "qwen3")])
llama3 = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
four = {"num_key_value_heads": 4}
configs = {
    "llama 4 plain": {**L, "rope_theta": 5000.0, "rope_scaling": None, "torch_dtype": "float16", "max_position_embeddings": 4096, "pretraining_tp": 1},
    "llama 4 linear, old key": {**L, "rope_scaling": {"type": "linear", "factor": 4.0}, "rms_norm_eps": 1e-5},
    "llama 4 llama3": {**L, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **llama3}, "max_position_embeddings": 131072, "tie_word_embeddings": True},
    "llama 5": {**L, "rope_parameters": {"rope_type": "default", "rope_theta": 777.0}, "dtype": "bfloat16", "num_key_value_heads": 1},
    "llama 5 llama3": {**L, "rope_parameters": {"rope_type": "llama3", "rope_theta": 9.0, **llama3}, "dtype": "bfloat16", "head_dim": 6},
    "llama by model_type": {k: v for k, v in L.items() if k != "architectures"},
    "mistral null window": {**M, **four, "sliding_window": None, "rope_theta": 1000000.0},
    "mistral absent window": {**M, **four},
    "mistral window": {**M, "num_key_value_heads": 2, "sliding_window": 11, "head_dim": 16},
    "qwen2 off": {**Q2, **four, "use_sliding_window": False, "sliding_window": 100, "max_window_layers": 1},
    "qwen2 on": {**Q2, **four, "use_sliding_window": True, "sliding_window": 100, "max_window_layers": 1},
    "qwen2 layer_types": {**Q2, **four, "use_sliding_window": True, "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "qwen2 5": {**Q2, "num_key_value_heads": 2, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "layer_types": ["full_attention"] * 3, "sliding_window": None, "tie_word_embeddings": True},
    "qwen3 default head": {**Q3, **four, "rope_theta": 1000000},
    "qwen3 bias": {**Q3, "num_key_value_heads": 1, "head_dim": 20, "attention_bias": True},
    "qwen3 null kv": {**Q3, "num_key_value_heads": None},
}
out = {}
for name, c in configs.items():
    with torch.device("meta"):
        os.makedirs("/tmp/cfg", exist_ok=True)
        json.dump(c, open("/tmp/cfg/config.json", "w"))
        out[name] = {"config": c, "facts": facts(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained("/tmp/cfg")))}
json.dump(out, open(os.path.join(here, "configs.json"), "w"), indent=1)
