"""Goldens of package prune: which weights PyTorch keeps.

    python generate.py        # torch 2.15.0

Scores |W| or |W|·‖x‖ in float32; the lowest go, by a stable ascending sort, so that among equals the first goes: n:m per group of m
consecutive inputs (keeps n; a last, shorter group of g keeps min(n, g), as if it were padded with zeros), Wanda's fraction
per row, magnitude's fraction over the whole matrix.
"""
import json, os
import torch

g = torch.Generator().manual_seed(7)
randn = lambda *s: torch.randn(s, generator=g)
matrices = {
    "odd": (randn(5, 13), randn(13).abs()),
    "two words": (randn(7, 70), randn(70).abs()),
    "ties": (torch.randint(-2, 3, (9, 24), generator=g).float(), torch.randint(1, 3, (24,), generator=g).float()),
    "zero weights": (randn(4, 16) * (torch.rand((4, 16), generator=g) > 0.7), randn(16).abs()),
    "zero norms": (randn(6, 20), randn(20).abs() * (torch.rand(20, generator=g) > 0.6)),
    "all zero": (torch.zeros(3, 8), torch.ones(8)),
    "subnormal": (randn(3, 12) * 1e-42, torch.ones(12)),
}


def lowest(s, k):
    return torch.zeros_like(s, dtype=torch.bool).scatter(-1, torch.sort(s, dim=-1, stable=True)[1][..., :k], True)


def mask(w, norm, pattern):
    s = w.abs() if norm is None else w.abs() * norm
    if ":" in pattern:
        n, m = map(int, pattern.split(":"))
        parts = [s[:, j : j + m] for j in range(0, s.shape[1], m)]
        return ~torch.cat([lowest(p, p.shape[1] - min(n, p.shape[1])) for p in parts], 1)
    if norm is None:
        return ~lowest(s.flatten(), int(s.numel() * float(pattern) + 1e-9)).reshape(s.shape)
    return ~lowest(s, int(s.shape[1] * float(pattern) + 1e-9))


out = []
for name, (w, norm) in matrices.items():
    cases = [{"method": m, "pattern": p, "keep": ["".join("01"[x] for x in row) for row in mask(w, norm if m == "wanda" else None, p).int().tolist()]}
             for m in ("magnitude", "wanda") for p in ("2:4", "4:8", "1:4", "3:4", "1:3", "0.5", "0.6", "0.7")]
    out.append({"name": name, "w": w.tolist(), "norm": norm.tolist(), "cases": cases})
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.json")
open(path, "w").write("[" + ",\n".join(json.dumps(x, separators=(",", ":")) for x in out) + "]\n")
