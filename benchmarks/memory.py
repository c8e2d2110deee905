"""Memory of learning on a CPU: the most that a process holds while it updates and plans.

    python benchmarks/memory.py                                          ours alone
    python benchmarks/memory.py --official tdmpc2 --r2dreamer r2dreamer  beside clones

Every figure is of a process of its own, MiB: what it holds before the agent is built, and at the
peak of three updates (batches as published) and three decisions, what it held before included.
Settings as in tdmpc2_speed.py and dreamer_speed.py, size 12 of DreamerV3 besides; the replay is
apart from this.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from record import record

MIB = 2**20
TDMPC2_SIZES, DREAMER_SIZES = (1, 5, 19), (1, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, help="a clone of the TD-MPC2 authors' code")
    parser.add_argument("--r2dreamer", type=Path, help="a clone of the repository")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", nargs=3, metavar=("MODEL", "SIZE", "SIDE"), help="one, by itself")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clones = {"official": arguments.official, "r2dreamer": arguments.r2dreamer}
    if arguments.case:
        model, size, side = arguments.case
        print(json.dumps(held(model, int(size), clones.get(side))))
        return
    cases = [("tdmpc2", size, "official") for size in TDMPC2_SIZES]
    cases += [("dreamer", size, "r2dreamer") for size in DREAMER_SIZES]
    rows = []
    for model, size, peer in cases:
        row = {"model": model, "size": size, "ours": alone(model, size, "ours", clones)}
        if clones[peer] and not (model == "dreamer" and size > 1):  # its size 1 alone is set up
            row[peer] = alone(model, size, peer, clones)
        rows.append(row)
        print(row)
    print(record("memory", {"threads": arguments.threads, "cases": rows}))


def alone(model: str, size: int, side: str, clones: dict[str, Path | None]) -> dict[str, float]:
    """Returns what `held` says of one case in a process of its own."""
    given = [x for name, path in clones.items() if path for x in (f"--{name}", str(path))]
    threads = ["--threads", str(torch.get_num_threads())]
    told = [sys.executable, __file__, "--case", model, str(size), side, *given, *threads]
    lines = subprocess.run(told, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def held(model: str, size: int, clone: Path | None) -> dict[str, float]:
    """Returns MiB: before the agent is built, and at the peak of its use."""
    before, build = (tdmpc2 if model == "tdmpc2" else dreamer)(size, clone)
    for call in build() * 3:
        call()
    return {"before": before, "peak": status("VmHWM")}


def tdmpc2(size: int, clone: Path | None):
    """Returns MiB before building, and what builds TD-MPC2: its update and its decision."""
    import tdmpc2_speed as speed

    def build():
        if clone is None:
            found = speed.cases(size, None)
            return [found["update"]["ours"][0], found["plan n=1"]["ours"][0]]
        agent = speed.official(clone, size)
        batch = speed.transitions(speed.windows(4))
        seen = torch.randn(speed.OBSERVED)
        return [lambda: agent._update(*batch), lambda: agent.act(seen)]

    if clone is not None:  # the imports of the authors' code count as imports
        speed.official(clone, 1)
    return status("VmRSS"), build


def dreamer(size: int, clone: Path | None):
    """Returns MiB before building, and what builds DreamerV3: its update and its decision."""
    import dreamer_speed as speed

    from umwelten.world_models.dreamer import DreamerV3

    def build():
        batch = speed.windows(speed.BATCH, speed.LENGTH)
        batch |= {"place": speed.place()}
        if clone is None:
            model = DreamerV3(speed.space(), speed.NU, size)
            return [lambda: model.update(batch), speed.acting(model, 1)]
        agent = speed.peer(clone, 4e-5)
        return [speed.updating(agent, batch), speed.peer_acting(agent, 1)]

    if clone is not None:
        speed.peer(clone, 4e-5)
    return status("VmRSS"), build


def status(field: str) -> float:
    """Returns a line of /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return round(int(line.split()[1]) * 1024 / MIB, 1)
    raise RuntimeError(f"no {field} in /proc/self/status")


if __name__ == "__main__":
    main()
