"""Goldens for splora's commands: tiny random models as transformers saves them, and what PyTorch makes of them.

    python oracle.py        # torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0

Per model folder: config.json in the spelling of transformers 4 or 5, weights in F32, BF16 or F16, one of them sharded, no
tokenizer. oracle.json has, per folder, the perplexity of ids.jsonl as `splora eval` defines it and the greedy continuation of a
prompt, both by transformers in float32. <folder>/wanda.safetensors has, per pattern, the masks and scores of Wanda as published
(statistics of the pruned blocks before). curves/ has training loops of the formula

    splora   y = x·(M ⊙ (W + s·B·A))ᵀ        lora   y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ

with torch.optim.AdamW: losses, gradient norms, learning rates, adapters before and after. peft/ is an adapter that PEFT wrote, and
the linears of its merge_and_unload.
"""
import json, math, os, shutil

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config,
                          get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup)

here = os.path.dirname(os.path.abspath(__file__))
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCAB, SEQ, NEW = 61, 24, 20
small = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=96, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=False)
llama3 = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0, "original_max_position_embeddings": 24}

# name: configuration, storage type, spelling of config.json, shard size
CASES = {
    "llama": (LlamaConfig(**small), "float32", 5, "50GB"),
    "mistral": (MistralConfig(**small, sliding_window=7), "bfloat16", 4, "50GB"),
    "qwen2": (Qwen2Config(**{**small, "tie_word_embeddings": True}), "float16", 5, "50GB"),
    "qwen3": (Qwen3Config(**small, head_dim=6), "float32", 4, "9KB"),
    "llama3-rope": (LlamaConfig(**small, rope_parameters=llama3), "bfloat16", 5, "50GB"),
    "linear-rope": (LlamaConfig(**small, rope_parameters={"rope_type": "linear", "rope_theta": 3000.0, "factor": 2.5}), "float32", 4, "50GB"),
}


def build(config, dtype, seed):
    """Weights so large that attention and logits are far from flat; norms and biases that are not all alike."""
    g = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean, spread = 0.0, 1.2 / math.sqrt(p.shape[-1])
            if "norm" in name:
                mean, spread = 1.0, 0.2
            elif p.ndim == 1:
                spread = 0.5
            elif "embed" in name and not config.tie_word_embeddings:
                spread = 1.0
            p.copy_(mean + spread * torch.randn(p.shape, generator=g))
    return model.to(getattr(torch, dtype)).eval()


def spell4(dir):
    """config.json as transformers 4 wrote it."""
    path = os.path.join(dir, "config.json")
    c = json.load(open(path))
    rope = c.pop("rope_parameters")
    c["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    c["rope_scaling"] = None if kind == "default" else {("type" if kind == "linear" else "rope_type"): kind, **rope}
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.46.0"
    json.dump(c, open(path, "w"), indent=2)


def save(model, dir, spelling=5, shards="50GB"):
    shutil.rmtree(dir, ignore_errors=True)
    model.save_pretrained(dir, max_shard_size=shards)
    if spelling == 4:
        spell4(dir)


def load(dir):
    """The folder as transformers opens it, computing in float32."""
    model = AutoModelForCausalLM.from_pretrained(dir, dtype=torch.float32, attn_implementation="eager").eval()
    for p in model.parameters():
        p.requires_grad_(False)
    return model


def linears(model):
    for name, mod in model.named_modules():
        if name.split(".")[-1] in LINEARS:
            yield name, mod


@torch.no_grad()
def perplexity(model, ids, seq=SEQ):
    """exp of the mean over windows of the mean loss of seq−1 predictions."""
    windows = [ids[i : i + seq] for i in range(0, len(ids) - seq + 1, seq)]
    losses = []
    for w in windows:
        t = torch.tensor([w])
        logits = model(input_ids=t, use_cache=False).logits.double()
        losses.append(F.cross_entropy(logits[0, :-1], t[0, 1:]).item())
    return {"ppl": math.exp(sum(losses) / len(losses)), "loss": sum(losses) / len(losses), "windows": len(windows), "tokens": len(windows) * (seq - 1)}


@torch.no_grad()
def greedy(model, prompt, new=NEW):
    """transformers' greedy generation, and the smallest gap between the best two logits, which says what may differ."""
    t = torch.tensor([prompt])
    out = model.generate(t, max_new_tokens=new, do_sample=False, return_dict_in_generate=True, output_logits=True, attention_mask=torch.ones_like(t))
    gap = min((x.topk(2).values[0, 0] - x.topk(2).values[0, 1]).item() for x in out.logits)
    return out.sequences[0, len(prompt):].tolist(), gap


def removed(pattern, scores):
    """Wanda's choice: n:m KEEPS n of m consecutive inputs; a number is the fraction that goes of each row. Stable: the first goes."""
    gone = torch.zeros_like(scores, dtype=torch.bool)
    if ":" in pattern:
        n, m = map(int, pattern.split(":"))
        for lo in range(0, scores.shape[1], m):
            group = scores[:, lo : lo + m]
            k = max(0, group.shape[1] - n)
            gone.scatter_(1, lo + torch.sort(group, dim=-1, stable=True)[1][:, :k], True)
        return gone
    k = int(scores.shape[1] * float(pattern) + 1e-9)
    return gone.scatter_(1, torch.sort(scores, dim=-1, stable=True)[1][:, :k], True)


@torch.no_grad()
def wanda(model, samples, pattern):
    """Wanda as published: block by block, statistics with the block's dense weights, then the pruned block's outputs go on. Prunes
    model in place and gives masks and scores."""
    layers = model.model.layers
    caught = [[] for _ in layers]  # what each block is called with: its attention mask and rotary positions
    hooks = [l.register_forward_pre_hook(lambda mod, args, kw, i=i: caught[i].append((args, kw)), with_kwargs=True) for i, l in enumerate(layers)]
    for s in samples:
        model(input_ids=torch.tensor([s]), use_cache=False)
    for h in hooks:
        h.remove()
    states = [(args[0] if args else kw["hidden_states"]) for args, kw in caught[0]]
    out = {}
    for i, layer in enumerate(layers):
        stats, hooks = {}, []
        for name, mod in linears(layer):
            def observe(mod, args, _, name=name):
                x = args[0].reshape(-1, args[0].shape[-1]).float()
                row, n = stats.get(name, (torch.zeros(x.shape[1]), 0))
                stats[name] = (row * (n / (n + 1)) + x.norm(dim=0) ** 2 / (n + 1), n + 1)
            hooks.append(mod.register_forward_hook(observe))
        def forward(x, k):
            args, kw = caught[i][k]
            kw = {a: b for a, b in kw.items() if a != "hidden_states"}
            y = layer(x, *args[1:], **kw)
            return y[0] if isinstance(y, tuple) else y
        for k, x in enumerate(states):
            forward(x, k)
        for h in hooks:
            h.remove()
        for name, mod in linears(layer):
            score = mod.weight.abs() * stats[name][0].sqrt()
            gone = removed(pattern, score)
            mod.weight[gone] = 0
            full = f"model.layers.{i}.{name}"
            out[full + ".mask"], out[full + ".score"] = (~gone).to(torch.uint8), score.contiguous()
        states = [forward(x, k) for k, x in enumerate(states)]
    return out


class Adapted:
    """A frozen model whose linears' forward is the formula."""

    def __init__(self, model, adapters, scale, method, masks):
        self.model, self.ab = model, {n: [t.clone().requires_grad_() for t in ab] for n, ab in adapters.items()}
        for name, mod in linears(model):
            if name in self.ab:
                self.adapt(mod, masks[name], *self.ab[name], scale, method)

    @staticmethod
    def adapt(mod, m, a, b, s, method):
        def forward(x):
            if method == "splora":
                return F.linear(x, m * (mod.weight + s * b @ a), mod.bias)
            return F.linear(x, mod.weight, mod.bias) + s * (x @ a.T) @ b.T
        mod.forward = forward

    def parameters(self):
        return [t for n in sorted(self.ab) for t in self.ab[n]]

    def loss(self, ids, labels):
        logits = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
        want = torch.tensor(labels[1:])
        return F.cross_entropy(logits, want, ignore_index=-100, reduction="sum"), int((want >= 0).sum())


def curve(model, rows, c, adapters, masks):
    """The training loop: gradients are sums over the global batch, divided by its active tokens; clip; AdamW; schedule."""
    scale = c["alpha"] / (math.sqrt(c["rank"]) if c["rslora"] else c["rank"])
    net = Adapted(model, adapters, scale, c["method"], masks)
    opt = torch.optim.AdamW(net.parameters(), lr=c["lr"], betas=(0.9, 0.999), eps=1e-8, weight_decay=c["weight_decay"])
    sched = {"cosine": get_cosine_schedule_with_warmup, "linear": get_linear_schedule_with_warmup}[c["schedule"]](opt, c["warmup_steps"], c["max_steps"])
    steps = []
    for k in range(c["max_steps"]):
        batch = [rows[(k * c["global_batch"] + i) % len(rows)] for i in range(c["global_batch"])]
        if c["packing"]:
            batch = rows  # the global batch is the whole set, in whatever rows it is packed
        total, tokens = 0.0, 0
        for r in batch:
            loss, n = net.loss(r["input_ids"], r["labels"])
            loss.backward()
            total, tokens = total + loss.item(), tokens + n
        for p in net.parameters():
            p.grad /= tokens
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), c["clip"]).item()
        steps.append({"loss": total / tokens, "grad_norm": norm, "lr": sched.get_last_lr()[0], "tokens": tokens})
        opt.step()
        sched.step()
        opt.zero_grad()
    return steps, {n: [t.detach() for t in ab] for n, ab in net.ab.items()}


def save_adapter(dir, adapters, c):
    """PEFT's layout with splora's marker."""
    os.makedirs(dir, exist_ok=True)
    save_file({f"base_model.model.{n}.lora_{'AB'[i]}.weight": t.contiguous() for n, ab in adapters.items() for i, t in enumerate(ab)},
              os.path.join(dir, "adapter_model.safetensors"))
    masked = c["method"] == "splora"
    json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "x", "r": c["rank"], "lora_alpha": c["alpha"], "lora_dropout": 0.0,
               "use_rslora": c["rslora"], "target_modules": sorted({n.split(".")[-1] for n in adapters}), "bias": "none", "fan_in_fan_out": False,
               "inference_mode": True, "rank_pattern": {}, "alpha_pattern": {}, "sparse_adapter": masked,
               "splora": {"version": 1, "method": c["method"], "masked_merge": masked}}, open(os.path.join(dir, "adapter_config.json"), "w"), indent=1)


def random_adapters(model, rank, targets, g):
    return {n: [0.15 * torch.randn(s, generator=g) for s in [(rank, m.in_features), (m.out_features, rank)]]
            for n, m in linears(model) if targets == "all-linear" or n.split(".")[-1] in targets.split(",")}


def random_rows(lengths, g):
    """Pre-tokenised rows; the first third of each is a prompt."""
    rows = []
    for n in lengths:
        ids = torch.randint(0, VOCAB, (n,), generator=g).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * (n // 3) + ids[n // 3 :]})
    return rows


def write_rows(path, rows):
    with open(path, "w") as f:
        for r in rows:
            f.write(json.dumps(r) + "\n")


CURVES = {
    "accumulated": dict(base="llama", method="splora", rank=3, alpha=6.0, rslora=False, targets="all-linear", lr=2e-2, weight_decay=0.1, clip=0.8,
                        schedule="cosine", warmup_steps=2, max_steps=10, global_batch=5, micro_batch=2, packing=False, lengths=[5, 20, 9, 24, 3, 14, 7, 11, 17, 4, 22, 8, 6]),
    "packed": dict(base="mistral", method="splora", rank=2, alpha=5.0, rslora=True, targets="q_proj,v_proj,down_proj", lr=1e-2, weight_decay=0.0, clip=100.0,
                   schedule="linear", warmup_steps=1, max_steps=10, global_batch=3, micro_batch=3, packing=True, lengths=[9, 15, 11, 13, 14, 10]),
    "lora": dict(base="qwen2", method="lora", rank=4, alpha=6.0, rslora=False, targets="all-linear", lr=1e-2, weight_decay=0.05, clip=0.5,
                 schedule="cosine", warmup_steps=3, max_steps=10, global_batch=4, micro_batch=3, packing=False, lengths=[12, 7, 24, 5, 18, 9, 16]),
}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, VOCAB, (n,), generator=g).tolist() for n in (40, 7, 90, 33)]
    write_rows(os.path.join(here, "ids.jsonl"), [{"input_ids": r} for r in ids])
    samples = [torch.randint(0, VOCAB, (n,), generator=g).tolist() for n in (SEQ, 11, SEQ, 17, SEQ, SEQ)]
    write_rows(os.path.join(here, "calibration.jsonl"), [{"input_ids": r} for r in samples])
    golden = {"seq": SEQ, "folders": {}}
    for k, (name, (config, dtype, spelling, shards)) in enumerate(CASES.items()):
        dir = os.path.join(here, name)
        save(build(config, dtype, 10 + k), dir, spelling, shards)
        model, prompt = load(dir), ids[0][: 5 + k]
        new, gap = greedy(model, prompt)
        assert gap > 1e-3, (name, gap)
        golden["folders"][name] = {**perplexity(model, sum(ids, [])), "prompt": prompt, "ids": new, "gap": gap}
        print(name, golden["folders"][name])
        tensors = {}
        for pattern in {"llama": ["2:4", "1:4", "0.6"], "mistral": ["3:4", "0.5"], "qwen3": ["2:4"]}.get(name, []):
            for t, v in wanda(load(dir), samples, pattern).items():
                tensors[pattern + "/" + t] = v
        if tensors:
            save_file(tensors, os.path.join(dir, "wanda.safetensors"))
    golden["curves"] = {}
    for name, c in CURVES.items():
        dir = os.path.join(here, "curves", name)
        shutil.rmtree(dir, ignore_errors=True)
        os.makedirs(dir)
        # The base: the folder's model with 2:4 of each linear, by magnitude, as it stands in the storage type; M = (W ≠ 0).
        base = AutoModelForCausalLM.from_pretrained(os.path.join(here, c["base"]), dtype=torch.float32)
        masks = {}
        with torch.no_grad():
            for n, mod in linears(base):
                masks[n] = (~removed("2:4", mod.weight.abs())).float()
                mod.weight.mul_(masks[n])
        for p in base.parameters():
            p.requires_grad_(False)
        rows = random_rows(c.pop("lengths"), g)
        write_rows(os.path.join(dir, "rows.jsonl"), rows)
        start = random_adapters(base, c["rank"], c["targets"], g)
        save_adapter(os.path.join(dir, "start"), start, c)
        steps, final = curve(base, rows, c, start, masks)
        save_file({f"{n}.{'AB'[i]}": t.contiguous() for n, ab in final.items() for i, t in enumerate(ab)}, os.path.join(dir, "final.safetensors"))
        golden["curves"][name] = {"settings": c, "steps": steps}
        print(name, [round(s["loss"], 4) for s in steps], [round(s["grad_norm"], 3) for s in steps])
    peft_golden(os.path.join(here, "peft"))
    json.dump(golden, open(os.path.join(here, "oracle.json"), "w"), indent=1)


def peft_golden(dir):
    from peft import LoraConfig, get_peft_model
    shutil.rmtree(dir, ignore_errors=True)
    model = get_peft_model(load(os.path.join(here, "llama")), LoraConfig(r=3, lora_alpha=7, use_rslora=True, target_modules=["q_proj", "o_proj", "up_proj"],
                           rank_pattern={"up_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 4}, task_type="CAUSAL_LM"))
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_" in n:
                p.copy_(0.2 * torch.randn(p.shape, generator=g))
    model.save_pretrained(dir)
    os.remove(os.path.join(dir, "README.md"))
    path = os.path.join(dir, "adapter_config.json")
    c = json.load(open(path))
    c["base_model_name_or_path"], c["target_modules"] = "llama", sorted(c["target_modules"])
    json.dump(c, open(path, "w"), indent=1)
    merged = model.merge_and_unload()
    save_file({n + ".weight": m.weight.detach().contiguous() for n, m in linears(merged)}, os.path.join(dir, "merged.safetensors"))


if __name__ == "__main__":
    main()
