#!/usr/bin/env python3
"""Measures in PyTorch what the quick start shows: dense, pruned, SP-LoRA, plain LoRA, and the dense control.

    python check.py

    pruning     Wanda n:m, block after block: a block's input norms come from the pruned blocks before it;
                |W_ij|·‖x_j‖₂, the n largest of m consecutive inputs stay
    SP-LoRA     y = x·(M ⊙ (W + s·B·A))ᵀ,  s = α/r,  A [r,in] ~ U(±1/√in), B [out,r] = 0
    perplexity  of the held-out packages as one text, BOS before it, windows of 512 without overlap, the rest dropped:
                exp(mean over windows of the mean loss of 511 predictions)
    closed      (pruned − tuned) / (pruned − dense)

Versions as in generate.py. Seeded; float32 by default (`--bf16` is quicker and within 0.1 % of it).
"""

import argparse
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.func import functional_call

import corpus
import llama


def load(folder):
    model = llama.Llama()
    weights = {n: w.float() for n, w in load_file(folder / "model.safetensors").items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not missing and unexpected in ([], ["lm_head.weight"]), (missing, unexpected)
    return model.requires_grad_(False)


def precision(args):
    return torch.autocast("cpu", torch.bfloat16) if args.bf16 else nullcontext()


def windows(tokenizer, part, T):
    ids = tokenizer.encode("".join(text for _, text in corpus.read(part))).ids
    n = len(ids) // T
    return torch.tensor(ids[: n * T]).view(n, T)


@torch.no_grad()
def perplexity(model, rows, args):
    total = 0.0
    for b in rows.split(8):
        with precision(args):
            total += model(b[:, :-1], b[:, 1:]).item() * len(b)
    return math.exp(total / len(rows))


@torch.no_grad()
def wanda(model, rows, n, m):
    """Prunes model in place; returns {weight name: M}."""
    decoder, masks = model.model, {}
    T = rows.shape[1]
    cos, sin = decoder.cos[:T], decoder.sin[:T]
    xs = [decoder.embed_tokens(b) for b in rows.split(8)]
    for i, block in enumerate(decoder.layers):
        squares = {}

        def add(name):
            def hook(_, inputs):
                squares[name] = squares.get(name, 0) + inputs[0].double().pow(2).sum((0, 1))
            return hook

        hooks = [l.register_forward_pre_hook(add(name)) for name, l in llama.linears(block)]
        for x in xs:
            block(x, cos, sin)
        for h in hooks:
            h.remove()
        for name, l in llama.linears(block):
            score = (l.weight.double().abs() * squares[name].sqrt()).view(-1, m)
            keep = torch.zeros_like(score).scatter_(1, score.topk(n, dim=1).indices, 1.0).view_as(l.weight).float()
            l.weight.mul_(keep)
            room = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            masks[f"model.layers.{i}.{room}.{name}.weight"] = keep
        xs = [block(x, cos, sin) for x in xs]
    return masks


def training_rows(tokenizer, seed, T):
    """The fine-tuning packages' files (BOS file EOS), shuffled, as rows of T+1 ids, shuffled."""
    rng = np.random.default_rng(seed)
    eos = tokenizer.token_to_id("<|end_of_text|>")
    docs = [e.ids + [eos] for e in tokenizer.encode_batch([text for _, text in corpus.read("fine_tune")])]
    ids = np.concatenate([docs[i] for i in rng.permutation(len(docs))])
    n = (len(ids) - 1) // T
    return [torch.from_numpy(ids[a : a + T + 1].astype(np.int64)) for a in rng.permutation(n) * T]


def rate(step, steps, warmup):
    """transformers' cosine schedule with warm-up, step 0 …"""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def tune(model, masks, rows, args):
    """Adapters on every linear; masks None is plain LoRA. Returns the merged weights by name."""
    torch.manual_seed(args.seed)
    names = [f"{path}.weight" for path, mod in model.named_modules() if isinstance(mod, torch.nn.Linear)]
    base = dict(model.named_parameters())
    s, r, adapters = args.alpha / args.rank, args.rank, {}
    for name in names:
        out, n_in = base[name].shape
        a = torch.empty(r, n_in).uniform_(-1 / n_in**0.5, 1 / n_in**0.5)
        adapters[name] = (torch.zeros(out, r).requires_grad_(), a.requires_grad_())

    def merged():
        return {n: (base[n] + s * (b @ a)) * (1.0 if masks is None else masks[n]) for n, (b, a) in adapters.items()}

    flat = [p for pair in adapters.values() for p in pair]
    opt = torch.optim.AdamW(flat, lr=args.lr, betas=(0.9, 0.999), weight_decay=0.0)
    per_step = args.batch_tokens // args.seq
    steps = args.tokens // args.batch_tokens
    assert steps * per_step <= len(rows), f"{len(rows)} rows do not last for {steps} steps"
    warmup = round(args.warmup * steps)
    for step in range(steps):
        opt.param_groups[0]["lr"] = args.lr * rate(step, steps, warmup)
        b = torch.stack(rows[step * per_step : (step + 1) * per_step])
        with precision(args):
            loss = functional_call(model, merged(), (b[:, :-1], b[:, 1:]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flat, 1.0)
        opt.step()
        opt.zero_grad()
    with torch.no_grad():
        return merged()


def with_weights(model, weights):
    other = llama.Llama()
    other.load_state_dict(model.state_dict() | weights)
    return other.requires_grad_(False)


def main():
    seeds = corpus.split()["seeds"]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, default=corpus.HERE)
    p.add_argument("--pattern", default="2:4")
    p.add_argument("--calibration", type=int, default=128, help="samples of 512 tokens")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--alpha", type=float, default=32)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--tokens", type=int, default=122_880)
    p.add_argument("--batch-tokens", type=int, default=512)
    p.add_argument("--seq", type=int, default=256)
    p.add_argument("--warmup", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=seeds["fine_tune"])
    p.add_argument("--only", default="splora,lora,control")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    held_out = windows(tokenizer, "held_out", llama.CONTEXT)
    calibration = torch.stack(training_rows(tokenizer, seeds["calibration"], llama.CONTEXT)[: args.calibration])[:, :-1]
    rows = training_rows(tokenizer, args.seed, args.seq)
    dense, pruned = load(args.model), load(args.model)
    n, m = (int(k) for k in args.pattern.split(":"))
    masks = wanda(pruned, calibration, n, m)
    d, q = perplexity(dense, held_out, args), perplexity(pruned, held_out, args)
    kept = sum(int(k.sum()) for k in masks.values()) / sum(k.numel() for k in masks.values())
    print(f"held out: {held_out.numel()} tokens in {len(held_out)} windows; fine-tuning text: {len(rows) * args.seq} tokens")
    print(f"dense    {d:8.4f}\npruned   {q:8.4f}  {100 * (q / d - 1):+.1f} % over dense, density {kept:.4f}", flush=True)
    result = {"dense": d, "pruned": q}
    runs = {"splora": (pruned, masks), "lora": (pruned, None), "control": (dense, None)}
    for name in args.only.split(","):
        start = time.time()
        model, mask = runs[name]
        tuned = with_weights(model, tune(model, mask, rows, args))
        v = result[name] = perplexity(tuned, held_out, args)
        what = f"{100 * (v / d - 1):+.1f} % over dense" if name == "control" else f"closes {100 * (q - v) / (q - d):.1f} % of the gap"
        print(f"{name:8} {v:8.4f}  {what}  ({time.time() - start:.0f} s)", flush=True)
    print(json.dumps(result | {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}))


if __name__ == "__main__":
    main()
