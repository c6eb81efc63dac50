"""Golden values of package optim.

    python generate.py            # writes golden.json beside itself

Made with torch 2.15.0, transformers 5.23.0. AdamW and clipping run in float64 from numbers that float32 holds; the schedules are
get_scheduler's, as a trainer uses them: the learning rate of optimizer step t is that before the t-th scheduler.step().
"""

import json
import os

import torch
from transformers import get_scheduler

P, STEPS = 37, 20


def numbers(t):
    return [float(v) for v in t.flatten()]


def adamw(seed, lr, betas, eps, wd, max_norm, tokens):
    g = torch.Generator().manual_seed(seed)
    p = torch.randn(P, generator=g).double().requires_grad_()
    out = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": wd, "clip": max_norm, "tokens": tokens, "start": numbers(p.detach())}
    opt = torch.optim.AdamW([p], lr=lr, betas=betas, eps=eps, weight_decay=wd)
    sums, norms = [], []
    for step in range(STEPS):
        total = ((1 + step) * torch.randn(P, generator=g)).float().double()  # un-normalised: Σ over tokens
        total[3] = 0  # a value that never gets a gradient
        p.grad = total / tokens
        norms.append(torch.nn.utils.clip_grad_norm_([p], max_norm if max_norm else float("inf")).item())
        opt.step()
        sums.append(numbers(total))
    state = opt.state[p]
    return {**out, "gradients": sums, "norms": norms, "end": numbers(p.detach()), "m": numbers(state["exp_avg"]), "v": numbers(state["exp_avg_sq"])}


def schedule(kind, lr, warmup, total):
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    s = get_scheduler(kind, opt, num_warmup_steps=warmup, num_training_steps=total)
    rates = []
    for _ in range(total):
        rates.append(s.get_last_lr()[0])
        opt.step()
        s.step()
    name = "constant" if kind.startswith("constant") else kind
    return {"kind": name, "lr": lr, "min_lr": 0.0, "warmup": warmup, "total": total, "rates": rates}


def ending_at(kind, lr, min_lr, warmup, total):
    """transformers' own schedule that ends at a minimum."""
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    s = get_scheduler(kind, opt, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs={"min_lr": min_lr})
    rates = []
    for _ in range(total):
        rates.append(s.get_last_lr()[0])
        opt.step()
        s.step()
    return {"kind": "cosine", "lr": lr, "min_lr": min_lr, "warmup": warmup, "total": total, "rates": rates}


if __name__ == "__main__":
    golden = {
        "adamw": [
            adamw(1, 1e-3, (0.9, 0.999), 1e-8, 0.0, 1.0, 7),
            adamw(2, 3e-2, (0.8, 0.95), 1e-6, 0.1, 0.0, 1),
            adamw(3, 1e-2, (0.9, 0.999), 1e-8, 0.01, 0.5, 1024),
        ],
        "schedules": [
            schedule(kind, lr, warmup, total)
            for kind in ["constant_with_warmup", "linear", "cosine"]
            for lr, warmup, total in [(1e-3, 0, 17), (3e-3, 5, 23), (1e-4, 9, 9), (2e-4, 1, 40)]
        ] + [ending_at("cosine_with_min_lr", 1e-3, 1e-4, 3, 31), ending_at("cosine_with_min_lr", 1e-3, 1e-5, 0, 12)],
    }
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.json"), "w") as f:
        json.dump(golden, f, separators=(",", ":"))
