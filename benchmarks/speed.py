"""How fast, how lean: the package against the plain formulation of plain.py, on the same weights, in one run.

    python benchmarks/speed.py [--quick] [--only NAME ...] [--threads N] [--norm NORM]

Prints a table of ratios. Both take their turns; the table has medians, without the samples that something
else on the machine disturbed; a single thread is timed by the processor's clock. Each peak of memory comes
from a process of its own. What both compute must agree before it is timed. The rows go to results/speed.json,
in the place of older ones of the same name; --quick is a glance at small sizes that leaves the file alone. On
a GPU the same command measures there, at sizes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import experiment
import measure
import torch
from plain import plain_forward
from torch import Tensor

from mvsnet_edu import MVSNet, mvsnet_loss, scale_intrinsics, variance_cost_volume
from mvsnet_edu.batches import collate
from mvsnet_edu.data import Scene
from mvsnet_edu.data.scene import Sample
from mvsnet_edu.features import CHANNELS, STRIDE
from mvsnet_edu.models import DepthEstimate
from mvsnet_edu.streaming import PlaneSweep

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: Seconds that the rounds of a case should take together; there are three to twenty of them.
BUDGET = 60.0


class Case(NamedTuple):
    """One line of the table, and what is hoped for: so many times faster, so many times less memory."""

    name: str
    mode: Literal["eval", "train"]
    size: tuple[int, int]
    depth_num: int
    views: int
    batch: int = 1
    faster: float | None = None
    leaner: float | None = None
    plain: bool = True  # False where the plain formulation asks for too much memory


CASES = {
    "cpu": [
        Case("eval-small", "eval", (160, 128), 48, 5, faster=3),
        Case("eval-middle", "eval", (320, 256), 96, 5),
        Case("eval-large", "eval", (640, 512), 192, 5, faster=4.5, leaner=5),
        Case("train-small", "train", (160, 128), 48, 3, batch=4, faster=1.8),
        Case("train-middle", "train", (320, 256), 96, 3),
        Case("train-large", "train", (640, 512), 192, 3, faster=3.5, leaner=5),
        Case("eval-full", "eval", (1600, 1184), 256, 5, plain=False),
    ],
    "cuda": [
        Case("eval-dtu", "eval", (1152, 864), 192, 5),
        Case("eval-full", "eval", (1600, 1184), 256, 5),
        Case("train-large", "train", (640, 512), 192, 3),
    ],
}
QUICK = [
    Case("eval-quick", "eval", (160, 128), 48, 5),
    Case("train-quick", "train", (160, 128), 48, 3),
]

#: What grows while the rest stays as in the middle: for each axis, the cases of one curve.
MIDDLE = Case("growth", "eval", (320, 256), 96, 5)
GROWTH = {
    "depth_num": [MIDDLE._replace(depth_num=D) for D in (48, 96, 192)],
    "pixels": [MIDDLE._replace(size=size) for size in ((160, 128), (320, 256), (480, 384))],
    "views": [MIDDLE._replace(views=V) for V in (2, 5, 7)],
}

#: How far the depths of both may lie apart, in intervals: in the mean, and anywhere.
MEAN, MOST = 1e-3, 0.05
#: How far gradients may lie apart, as a share of their length: a pixel at the kink of L1 or of a ReLU falls
#: to either side. In float64, where the tests compare, nothing is left. And how many may trust another bin.
GRADIENT, OTHER_BIN = 0.02, 2e-3


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(Case(*json.loads(options.peak)), options.contender, options.norm))
        return
    cases = QUICK if options.quick else CASES[DEVICE]
    chosen = [case for case in cases if not options.only or case.name in options.only]
    rows = [_row(case, options) for case in chosen]
    print(table(rows))
    if options.quick:
        return
    growth = growths(options) if not options.only or "growth" in options.only else None
    save(experiment.RESULTS / "speed.json", rows, growth, _circumstances(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing written")
    names = [case.name for case in (*CASES[DEVICE], *QUICK)] + ["growth"]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--norm", default="", help="random weights with this norm, not those that ship")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # a fresh process, for one peak
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- what is compared --------------------------------------------------------------------------------


def network_for(mode: str, norm: str) -> MVSNet:
    """The weights that ship; or random ones with another norm, as the ports use batch norm."""
    network = untrained(norm) if norm else MVSNet.from_pretrained("mvsnet")
    return network.to(DEVICE).train(mode == "train")


@torch.no_grad()
def untrained(norm: str) -> MVSNet:
    """Random weights that decide clearly, and running averages that fit them."""
    torch.manual_seed(0)
    network = MVSNet(norm=norm).to(DEVICE).train()
    network.cost_reg_net.conv6_2.weight *= 30
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    sample = sample_for(QUICK[0])
    network(sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values)
    return network


def sample_for(case: Case) -> Sample:
    """Views of the still life, at the size that is asked for."""
    scene = Scene.open(experiment.ROOT / "data" / "still_life")
    references = scene.references[: case.batch]
    samples = [scene.sample(view, case.views - 1, case.depth_num, case.size) for view in references]
    return collate(samples, case.views).to(DEVICE)


def contenders(case: Case) -> list[str]:
    """Who takes part; bfloat16 only where there is hardware for it."""
    half = ["bf16"] if DEVICE == "cuda" else []
    return (["plain"] if case.plain else []) + ["package"] + half


def program(case: Case, contender: str, network: MVSNet, sample: Sample) -> Callable[[], Any]:
    """One pass or one training step."""
    views = sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values

    def forward() -> DepthEstimate:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=contender == "bf16"):
            return plain_forward(network, *views) if contender == "plain" else network(*views)

    def train() -> tuple[Tensor, Tensor]:
        network.zero_grad(set_to_none=True)
        estimate = forward()
        truth = sample.ground_truth
        loss = mvsnet_loss(estimate.depth, estimate.refined_depth, truth, sample.depth_interval)
        loss.backward()
        return loss.detach(), torch.cat([weight.grad.flatten() for weight in network.parameters()])

    return train if case.mode == "train" else torch.inference_mode()(forward)


def difference(case: Case, one: Any, other: Any, interval: Tensor) -> dict[str, float]:
    """Between what two contenders computed."""
    if case.mode == "train":
        (loss, gradient), (other_loss, other_gradient) = one, other
        apart = (gradient - other_gradient).norm() / other_gradient.norm()
        return {"loss": (loss - other_loss).abs().item(), "gradient": apart.item()}
    apart = (one.depth - other.depth).abs() / interval.view(-1, 1, 1)
    bins = (one.probability_map - other.probability_map).abs() > 0.01
    return {"mean": apart.mean().item(), "most": apart.max().item(), "bins": bins.float().mean().item()}


def check(difference: dict[str, float]) -> None:
    """Only what computes the same is compared."""
    limits = {"mean": MEAN, "most": MOST, "bins": OTHER_BIN, "gradient": GRADIENT, "loss": 1e-3}
    over = {name: value for name, value in difference.items() if not value <= limits[name]}
    if over:
        raise AssertionError(f"the package and the plain formulation differ: {over}")


# --- measuring ---------------------------------------------------------------------------------------


def _row(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """All about one case, as the JSON has it."""
    print(f"{case.name} ...", file=sys.stderr, flush=True)
    memory = {name: fresh_peak(case, name, options) for name in contenders(case)}
    network, sample = network_for(case.mode, options.norm), sample_for(case)
    programs = {name: program(case, name, network, sample) for name in contenders(case)}
    start = time.perf_counter()
    first = {name: run() for name, run in programs.items()}  # warms up, too
    rounds = rounds_within(BUDGET / (4 if options.quick else 1), time.perf_counter() - start)
    row = {**case._asdict(), "rounds": rounds, "load": _load()}
    if case.plain:
        row["difference"] = difference(case, first["package"], first["plain"], sample.depth_interval)
        check(row["difference"])
    del first
    times = measure.in_turn(programs, rounds, DEVICE)
    for name in programs:
        row[name] = {**measure.timing(times[name])._asdict(), "peak": memory[name]}
    return row | _kernel(case, sample, options) if DEVICE == "cuda" and case.mode == "eval" else row


def rounds_within(budget: float, one_round: float) -> int:
    return min(20, max(3, round(budget / one_round)))


def fresh_peak(case: Case, contender: str, options: argparse.Namespace) -> int:
    what = ["--peak", json.dumps(case), "--contender", contender]
    how = ["--threads", str(options.threads), "--norm", options.norm]
    return measure.fresh_process(str(Path(__file__)), *what, *how)


def peak(case: Case, contender: str, norm: str) -> int:
    """In this process: bytes that the first pass or step adds to the weights and the sample."""
    case = case._replace(size=tuple(case.size))
    run = program(case, contender, network_for(case.mode, norm), sample_for(case))
    return measure.peak_growth(run, DEVICE)


def growths(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory along each axis; the middle, which all curves share, is measured once."""
    peak_of = cache(lambda case, name: fresh_peak(case, name, options))
    return {axis: growth(axis, cases, peak_of) for axis, cases in GROWTH.items()}


def growth(axis: str, cases: list[Case], peak_of: Callable[[Case, str], int]) -> dict[str, Any]:
    """One curve of each contender, and how steep it is in bytes per step of the axis."""
    print(f"growth with {axis} ...", file=sys.stderr, flush=True)
    x = [case.size[0] * case.size[1] if axis == "pixels" else getattr(case, axis) for case in cases]
    curves = {name: [peak_of(case, name) for case in cases] for name in contenders(MIDDLE)}
    return {"x": x, **curves, "slopes": {name: measure.slope(x, curve) for name, curve in curves.items()}}


@torch.inference_mode()
def _kernel(case: Case, sample: Sample, options: argparse.Namespace) -> dict[str, Any]:
    """Of the Triton kernel alone: seconds, bytes per second if each moved once, and those of a copy."""
    V, (W, H) = case.views, case.size
    shape = H // STRIDE, W // STRIDE
    features = torch.randn(1, V, CHANNELS, *shape, device=DEVICE)
    views = scale_intrinsics(sample.intrinsics, 1 / STRIDE), sample.extrinsics, sample.depth_values
    sweep = PlaneSweep(*(each[0] for each in views), shape)
    table = sweep.table(features[0])
    programs = {
        "eager": lambda: variance_cost_volume(features, *views),
        "fused": lambda: sweep.spread(table, slice(None), torch.bfloat16),
    }
    moved = table.nbytes + programs["fused"]().nbytes  # compiles, too
    times = measure.in_turn(programs, 10, DEVICE)
    best = {name: measure.timing(samples).seconds for name, samples in times.items()}
    return {"kernel": {**best, "bytes_per_second": moved / best["fused"], "copy": measure.copy_rate(DEVICE)}}


# --- what comes out ----------------------------------------------------------------------------------


def ratios(row: dict[str, Any], contender: str = "package") -> tuple[float, float] | None:
    """How many times faster than the plain formulation, and with how many times less memory."""
    if "plain" not in row or row["plain"] in (True, False) or contender not in row:
        return None
    plain, own = row["plain"], row[contender]
    return plain["seconds"] / own["seconds"], plain["peak"] / own["peak"]


def table(rows: list[dict[str, Any]]) -> str:
    """For the terminal."""
    head = "case                size   D  N  B   plain           package         faster      leaner"
    return "\n".join([head, *(_line(row) for row in rows)])


def _line(row: dict[str, Any]) -> str:
    W, H = row["size"]
    what = f"{row['name']:12}{W:>5} x {H:<5}{row['depth_num']:>4} {row['views']:>2} {row['batch']:>2}"
    both = ratios(row)
    sides = [_side(row[name]) if both or name == "package" else "-" for name in ("plain", "package")]
    wanted = row["faster"], row["leaner"]
    compared = [_against(*pair) for pair in zip(both, wanted, strict=True)] if both else ["", ""]
    texts = [f"{text:16}" for text in sides] + [f"{text:12}" for text in compared]
    return f"{what}   {''.join(texts)}".rstrip()


def _side(measured: dict[str, Any]) -> str:
    return f"{measured['seconds']:.3g} s {measured['peak'] / 1e6:.0f} MB"


def _against(ratio: float, target: float | None) -> str:
    return f"{ratio:.1f} x" + (f" ({target:g})" if target else "")


def save(path: Path, rows: list[dict[str, Any]], growth: dict | None, circumstances: dict) -> None:
    """Put rows into the file, in the place of older ones of the same name, device and norm."""
    known = json.loads(path.read_text()) if path.exists() else {"cases": [], "growth": []}
    key = lambda row: (row["name"], row["device"], row["norm"])  # noqa: E731
    new = [{**row, **circumstances} for row in rows]
    curves = [{"name": "growth", **growth, **circumstances}] if growth else []
    merged = {
        kind: sorted({key(row): row for row in (*known[kind], *fresh)}.values(), key=key)
        for kind, fresh in (("cases", new), ("growth", curves))
    }
    experiment.write("speed", **merged)


def _circumstances(options: argparse.Namespace) -> dict[str, Any]:
    """Where, when and how; each row has them, because rows may come from several runs."""
    return {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "processor": _processor(),
        "threads": options.threads,
        "clock": measure.clock_name(DEVICE),
        "norm": options.norm or "shipped weights",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "matmul": measure.matmul_rate(DEVICE),
        "copy": measure.copy_rate(DEVICE),
    }


def _processor(info: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in lines}["model name"]
    except (OSError, KeyError):
        return platform.processor()


def _load() -> float | None:
    """How many processes wanted to run in the last minute, this one included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
