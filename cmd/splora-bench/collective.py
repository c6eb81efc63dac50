"""The peer of `splora-bench collective`: torch.distributed's all-reduce over Gloo, one rank per process, float32 in place.

Prints one JSON line: for each vector the seconds of every timed call.
"""
import argparse
import json
import time

parser = argparse.ArgumentParser()
for name in ("rank", "world", "port", "times"):
    parser.add_argument("--" + name, type=int)
parser.add_argument("--floats")
arg = parser.parse_args()

import torch
import torch.distributed as dist

torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{arg.port}", rank=arg.rank, world_size=arg.world)
seconds = []
for n in map(int, arg.floats.split(",")):
    v = torch.full((n,), float(arg.rank + 1))
    dist.all_reduce(v)
    want = arg.world * (arg.world + 1) / 2
    if v.min() != want or v.max() != want:
        raise SystemExit(f"the sum is {v.min()} to {v.max()}, not {want}")
    took = []
    for _ in range(arg.times):
        v.fill_(arg.rank + 1)
        dist.barrier()
        at = time.perf_counter()
        dist.all_reduce(v)
        took.append(time.perf_counter() - at)
    seconds.append(took)
if arg.rank == 0:
    print(json.dumps({"seconds": seconds, "torch": torch.__version__}))
