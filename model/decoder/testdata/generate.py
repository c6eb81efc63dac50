"""Golden files of package decoder: tiny random models of Hugging Face transformers, run in float64.

    python generate.py            # writes *.safetensors, rope.json, curve.json and bfloat16.json beside itself

Made with torch 2.15.0, transformers 5.23.0, safetensors (any). Every weight is representable in float32, so both sides start
from the same numbers. Each linear's forward is replaced by the formula, and torch.autograd differentiates that:

    splora   y = x·(M ⊙ (W + s·B·A))ᵀ + bias          lora   y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ + bias

A file holds: weights (pruned positions 0), "<linear>.mask" (U8), "<linear>.lora_A", "<linear>.lora_B", the batch (I32), and, under
"splora." and "lora.", logits of the rows that are not padding, the losses of all active tokens, and every adapter gradient of
Σ loss. "__metadata__": {"case": JSON of the decoder.Config, scale, rank, targets}.

bfloat16.json holds how far torch itself is from float64 on the same model and batch when it computes in bfloat16: with the same
things in float32 as splora has (adapters and their gradients, the merge, sums of products, softmax, the norms' statistics).
"""

import copy
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, AutoModelForCausalLM, get_scheduler
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, SCALE, V, C, INTER = 3, 1.75, 53, 24, 36


def mask_of(w, pattern, g):
    """Keeps the larger ones, as magnitude pruning would."""
    if pattern == "2:4":
        groups = w.abs().reshape(w.shape[0], -1, 4)
        keep = groups.argsort(-1, descending=True)[..., :2]
        return torch.zeros_like(groups).scatter(-1, keep, 1).reshape(w.shape)
    return (torch.rand(w.shape, generator=g) > float(pattern)).double()


def linears(model):
    for name, mod in model.named_modules():
        if name.split(".")[-1] in LINEARS:
            yield name, mod


def prepare(model, pattern, g):
    """Random weights, pruned, with one kept zero in each linear; random A and B, neither of them zero (and small enough
    that no softmax saturates: torch in float32 is itself below 5e-6 of the float64 result)."""
    masks, adapters = {}, {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            spread, mean = (0.3, 1.0) if "norm" in name else (0.25, 0.0)
            p.copy_((mean + spread * torch.randn(p.shape, generator=g)).float().double())
        for name, mod in linears(model):
            m = mask_of(mod.weight, pattern, g)
            mod.weight.mul_(m)
            row = m.nonzero()[7]
            mod.weight[row[0], row[1]] = 0
            masks[name] = m
            adapters[name] = [
                (0.15 * torch.randn(s, generator=g)).float().double().requires_grad_()
                for s in [(RANK, mod.in_features), (mod.out_features, RANK)]
            ]
    for p in model.parameters():
        p.requires_grad_(False)
    return masks, adapters


def adapt(mod, method, m, a, b):
    def forward(x):
        if method == "splora":
            return F.linear(x, m * (mod.weight + SCALE * b @ a), mod.bias)
        return F.linear(x, mod.weight, mod.bias) + SCALE * (x @ a.T) @ b.T

    mod.forward = forward


def batch(kind, B, T, g):
    tokens = torch.randint(0, V, (B, T), generator=g)
    pos = torch.arange(T).repeat(B, 1)
    docs = torch.zeros(B, T, dtype=torch.long)
    if kind == "padded":
        for i in range(1, B):
            docs[i, T - 2 * i :] = -1
    if kind == "packed":
        for i, cut in enumerate([5, 8]):
            docs[i, cut:] = 1
            pos[i, cut:] = torch.arange(T - cut)
        docs[1, T - 2 :] = -1
    targets = torch.full((B, T), -100)
    targets[:, :-1] = torch.where((docs[:, 1:] == docs[:, :-1]) & (docs[:, 1:] >= 0), tokens[:, 1:], -100)
    targets[0, 1] = -100  # a token of a prompt
    return tokens, pos, docs, targets


def mask_for(model, kind, docs):
    if kind != "packed":
        return (docs >= 0).long()
    i = torch.arange(docs.shape[1])
    see = (docs[:, :, None] == docs[:, None, :]) & (i[:, None] >= i[None, :])
    return torch.zeros(see.shape, dtype=model.dtype).masked_fill(~see, torch.finfo(model.dtype).min)[:, None]


def run(model, kind, tokens, pos, docs, targets):
    logits = model(input_ids=tokens, position_ids=pos, attention_mask=mask_for(model, kind, docs), use_cache=False).logits
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
    return logits[docs >= 0], loss[targets.flatten() >= 0]


def float32_error(model, masks, adapters, method, kind, data, want):
    """The worst relative error of an adapter gradient when torch itself computes in float32: what the problem's condition costs."""
    single = copy.deepcopy(model).float()
    low = {n: [t.detach().float().requires_grad_() for t in ab] for n, ab in adapters.items()}
    for n, mod in linears(single):
        adapt(mod, method, masks[n].float(), *low[n])
    _, loss = run(single, kind, *data)
    grads = torch.autograd.grad(loss.sum(), [t for n in low for t in low[n]])
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in zip(grads, want))


def distance(got, want):
    """‖got − want‖ / ‖want‖ over all tensors of a list."""
    d = sum(((a.detach().double() - b.detach()) ** 2).sum().item() for a, b in zip(got, want))
    return (d / sum((b.detach() ** 2).sum().item() for b in want)) ** 0.5


def adapt_half(mod, method, weight, m, a, b):
    """adapt with bfloat16 activations: weight, m, a and b are float32; what multiplies activations is rounded."""
    def forward(x):
        if method == "splora":
            return F.linear(x, (m * (weight + SCALE * b @ a)).bfloat16(), mod.bias)
        return F.linear(x, weight.bfloat16(), mod.bias) + SCALE * (x @ a.bfloat16().T) @ b.bfloat16().T

    mod.forward = forward


def bfloat16_errors(model, masks, adapters, method, kind, data, logits, loss, grads):
    """Relative errors of logits, of the tokens' losses, and of all dA and all dB, of torch in bfloat16."""
    half = copy.deepcopy(model).bfloat16()
    low = {n: [t.detach().float().requires_grad_() for t in ab] for n, ab in adapters.items()}
    weights = {n: mod.weight.float() for n, mod in linears(model)}
    for n, mod in linears(half):
        adapt_half(mod, method, weights[n], masks[n].float(), *low[n])
    tokens, pos, docs, targets = data
    all_logits = half(input_ids=tokens, position_ids=pos, attention_mask=mask_for(half, kind, docs), use_cache=False).logits
    h_loss = F.cross_entropy(all_logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none")[targets.flatten() >= 0]
    h_grads = torch.autograd.grad(h_loss.sum(), [t for n in low for t in low[n]])
    return {"logits": distance([all_logits[docs >= 0]], [logits]), "loss": distance([h_loss], [loss]),
            "dA": distance(h_grads[0::2], grads[0::2]), "dB": distance(h_grads[1::2], grads[1::2])}


def spell_rope(r):
    return {
        "Theta": r["rope_theta"], "Scaling": r["rope_type"], "Factor": r.get("factor", 0),
        "LowFreqFactor": r.get("low_freq_factor", 0), "HighFreqFactor": r.get("high_freq_factor", 0),
        "OriginalMaxPositions": r.get("original_max_position_embeddings", 0),
    }


def spell(c, model):
    """decoder.Config as JSON."""
    rope = dict(c.rope_parameters)
    window = getattr(c, "sliding_window", None) if c.model_type == "mistral" else None
    return {
        "Vocab": c.vocab_size, "Hidden": c.hidden_size, "Inter": c.intermediate_size, "Layers": c.num_hidden_layers,
        "Heads": c.num_attention_heads, "KVHeads": c.num_key_value_heads, "HeadDim": model.model.layers[0].self_attn.head_dim,
        "Eps": c.rms_norm_eps, "Windows": [window] * c.num_hidden_layers if window else None, "QKNorm": c.model_type == "qwen3",
        "Tied": c.tie_word_embeddings, "MaxPositions": c.max_position_embeddings,
        "Rope": spell_rope(rope),
    }


BFLOAT16 = {}


def make(name, config, pattern, kind, B, T, seed):
    g = torch.Generator().manual_seed(seed)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    masks, adapters = prepare(model, pattern, g)
    tokens, pos, docs, targets = batch(kind, B, T, g)
    out = {n: p.detach().float().contiguous() for n, p in model.named_parameters()}
    for field, t in [("tokens", tokens), ("positions", pos), ("docs", docs), ("targets", targets)]:
        out["batch." + field] = t.int()
    for n, m in masks.items():
        out[n + ".mask"] = m.to(torch.uint8)
        out[n + ".lora_A"], out[n + ".lora_B"] = (t.detach().float() for t in adapters[n])
    for method in ["splora", "lora"]:
        for n, mod in linears(model):
            adapt(mod, method, masks[n], *adapters[n])
        logits, loss = run(model, kind, tokens, pos, docs, targets)
        grads = torch.autograd.grad(loss.sum(), [t for n in adapters for t in adapters[n]])
        worst = float32_error(model, masks, adapters, method, kind, (tokens, pos, docs, targets), grads)
        print(f"{name:18} {method:6} torch float32: dA, dB ≤ {worst:.1e}")
        BFLOAT16.setdefault(name, {})[method] = bfloat16_errors(
            model, masks, adapters, method, kind, (tokens, pos, docs, targets), logits, loss, grads)
        out[method + ".logits"], out[method + ".loss"] = logits.detach().float(), loss.detach().float()
        for i, n in enumerate(adapters):
            out[f"{method}.{n}.lora_A"], out[f"{method}.{n}.lora_B"] = grads[2 * i].float(), grads[2 * i + 1].float()
    meta = {"case": json.dumps({"Config": spell(config, model), "Scale": SCALE, "Rank": RANK, "Batch": kind, "Pattern": pattern})}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".safetensors")
    save_file({k: v.clone().contiguous() for k, v in out.items()}, path, meta)
    os.chmod(path, 0o644)
    print(name, os.path.getsize(path), "loss", loss.mean().item())
    return model, masks, adapters, (tokens, pos, docs, targets)


def config(cls, **kw):
    base = dict(vocab_size=V, hidden_size=C, intermediate_size=INTER, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False)
    return cls(**{**base, **kw})


def rope(kind, theta=10000.0, **kw):
    return {"rope_type": kind, "rope_theta": theta, **kw}


def curve(model, masks, adapters, data):
    """Loss and gradient norm of twelve steps of SP-LoRA, clipped, with AdamW on a cosine, in float64."""
    lr, warmup, total, clip, decay = 2e-2, 3, 12, 1.0, 0.01
    for n, mod in linears(model):
        adapt(mod, "splora", masks[n], *adapters[n])
    params = [t for n in adapters for t in adapters[n]]
    opt = torch.optim.AdamW(params, lr=lr, weight_decay=decay)
    schedule = get_scheduler("cosine", opt, num_warmup_steps=warmup, num_training_steps=total)
    out = {"LR": lr, "Warmup": warmup, "Total": total, "Clip": clip, "WeightDecay": decay, "Loss": [], "Norm": []}
    for _ in range(total):
        opt.zero_grad()
        loss = run(model, "padded", *data)[1].mean()
        loss.backward()
        out["Loss"].append(loss.item())
        out["Norm"].append(torch.nn.utils.clip_grad_norm_(params, clip).item())
        opt.step()
        schedule.step()
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "curve.json"), "w") as f:
        json.dump(out, f)
    print("curve", out["Loss"][0], "to", out["Loss"][-1])


def frequencies():
    """inv_freq of transformers (float32) for configurations of real models."""
    out = []
    for d, positions, r in [
        (128, 4096, rope("default")),
        (128, 16384, rope("linear", factor=4.0)),
        (128, 131072, rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)),
        (64, 131072, rope("llama3", 500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)),
    ]:
        c = config(LlamaConfig, head_dim=d, max_position_embeddings=positions, rope_parameters=r)
        f = LlamaRotaryEmbedding(c).inv_freq
        out.append({"HeadDim": d, "MaxPositions": positions, "Rope": spell_rope(r), "Frequencies": [float(x) for x in f]})
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "rope.json"), "w") as f:
        json.dump(out, f, separators=(",", ":"))


if __name__ == "__main__":
    frequencies()
    curve(*make("llama", config(LlamaConfig, head_dim=8), "2:4", "padded", 2, 11, 1))
    make("llama_bias_packed", config(LlamaConfig, attention_bias=True, mlp_bias=True, num_key_value_heads=1), "0.5", "packed", 2, 13, 2)
    make("qwen2", config(Qwen2Config, tie_word_embeddings=True, rms_norm_eps=1e-6), "0.6", "padded", 3, 9, 3)
    make("qwen3", config(Qwen3Config, head_dim=10), "2:4", "padded", 2, 7, 4)
    make("mistral", config(MistralConfig, sliding_window=4, head_dim=8), "0.5", "padded", 2, 15, 5)
    make("llama3_rope", config(LlamaConfig, rope_parameters=rope(
        "llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=1000),
        max_position_embeddings=8000), "2:4", "whole", 2, 21, 6)
    make("linear_rope", config(LlamaConfig, num_key_value_heads=4, rope_parameters=rope("linear", factor=2.5)), "0.7", "whole", 2, 17, 7)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bfloat16.json"), "w") as f:
        json.dump({n: {m: {k: float(f"{v:.3g}") for k, v in e.items()} for m, e in b.items()} for n, b in BFLOAT16.items()}, f, indent=1)
