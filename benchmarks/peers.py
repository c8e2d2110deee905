"""Peers: our worlds beside eight peers, taking turns: steps, pictures, resets, start, memory.

    python benchmarks/peers.py --venvs FOLDER [--seconds 2] [--rounds 3]

A peer runs in its own Python, FOLDER/<peer>/bin/python; who is missing is left out with a note.
Gymnasium and dm_control are in ours. The others' folders are virtual environments that hold

    robotics    gymnasium-robotics==1.4.2 mujoco==3.11.0 gymnasium==1.4.0
    metaworld   metaworld==3.1.1 packaging
    robosuite   robosuite==1.5.2 mujoco==3.8.1 h5py gymnasium==1.4.0
    minigrid    minigrid==3.2.0
    envpool     envpool==1.2.5
    playground  playground==0.2.0

CPU times are of all threads of a process; rates in a second are on two cores. Our pictures are
rgb, depth and segmentation without shadows, theirs rgb with the shadows that they have.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import peer

from record import record

LIKE = {  # our task, and what it is set beside; the first two: same model, same control rate
    "WalkerWalk": "gymnasium/walker dm_control/walker-walk envpool/WalkerWalk-v1 "
    "playground/WalkerWalk",  # Playground's own model has a cheaper solver
    "CheetahRun": "gymnasium/cheetah dm_control/cheetah-run envpool/CheetahRun-v1",
    "PickPlace": "robotics/gymnasium_robotics:FetchPickAndPlace-v4 "
    "metaworld/metaworld:Meta-World/MT1 envpool/PandaPickCube-v1",
    "Lift": "robosuite/Lift",
    "Reach": "minigrid/BabyAI-GoToLocal-v0",
}
HOME = ("umwelten", "gymnasium", "dm_control")  # live in our own Python
COST = {"reset_ms": -1, "make_cpu_s": -1, "resident_mib": -1}
ROWS = {  # row of the table: the kinds that make it, what is compared, and whether more is better
    "state": (("state",), {"per_cpu_s": 1, "real_time_factor": 1} | COST),
    "vector": (("native", "sync", "async"), {"per_s": 1, "simulated_s_per_s": 1}),
    "rgb64": (("rgb64", "rgb64_rows"), {"per_cpu_s": 1}),
    "rgb84": (("rgb84", "rgb84_rows"), {"per_cpu_s": 1}),
    "check": (("check",), {}),
}
ANY = ("state", "sync", "async", "rgb64", "rgb84", "check")
KINDS = {  # who offers other kinds
    "umwelten": ("state", "native", "rgb64", "rgb64_rows", "rgb84", "rgb84_rows", "check"),
    "dm_control": ANY[:-1],  # it, EnvPool and Playground have no `gymnasium.Env` to check
    "metaworld": ("state", "rgb64", "rgb84", "check"),  # 64 worlds take 42 s to make
    "robosuite": ("state", "rgb64", "rgb84", "check"),
    "minigrid": ("state", "sync", "rgb64", "rgb84", "check"),  # its words break async
    "envpool": ("state", "native"),  # its pictures end the process where there is no display
    "playground": ("state", "native"),
}
PATIENCE = 300  # s until a silent peer is given up


class Side:
    """A world in a process of its own, which measures when it is asked to."""

    def __init__(self, world: str, kind: str, venvs: Path):
        self.entry, self.rounds = {"world": world, "kind": kind}, []
        name = world.partition("/")[0]
        python = sys.executable if name in HOME else venvs.absolute() / name / "bin" / "python"
        self.well = Path(python).exists()
        if not self.well:
            self.entry["note"] = "not installed"
            return
        call = [peer.__file__] if name != "umwelten" else [__file__, "--ours"]
        self._words = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(python), str(Path(call[0]).resolve()), *call[1:], world, kind],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words,
        )  # fmt: skip

    def start(self) -> Side:
        """Hears what the process tells by itself."""
        while self.well and not self.entry.keys() & {"dt", "check_env"}:
            self.entry |= self.hear()
        return self

    def hear(self) -> dict:
        """Returns the next line of JSON, or the last words of a process that ended or is silent."""
        clock = threading.Timer(PATIENCE, self._process.kill)
        clock.start()
        try:
            for line in self._process.stdout:
                if line.startswith("{"):
                    return json.loads(line)
        finally:
            clock.cancel()
        self.well = False
        code = self._process.wait()
        self._words.seek(0)
        last = [f"ended with code {code}", *(line.strip() for line in self._words if line.strip())][
            -1
        ]
        return {"note": re.sub(r"(/[\w.+-]+)+/", "", last)[:200]}

    def take_turn(self, seconds: float) -> None:
        if self.well:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
            self.rounds.append(self.hear())

    def close(self) -> dict:
        """Ends the process; returns the start and the medians and ranges of all turns."""
        if "_process" not in vars(self):
            return self.entry
        self._process.communicate()
        if not self.well or not self.rounds:
            return self.entry | (self.rounds or [{}])[-1]
        dt = self.entry["dt"]
        for r in self.rounds if dt else ():
            r |= {"real_time_factor": r["per_cpu_s"] * dt, "simulated_s_per_s": r["per_s"] * dt}
        for key in self.rounds[0]:
            values = sorted(float(f"{r[key]:.4g}") for r in self.rounds)
            self.entry |= {key: statistics.median(values), f"{key}_range": [values[0], values[-1]]}
        return self.entry


def row(task: str, name: str, args: argparse.Namespace) -> list[dict]:
    """Returns what all sides of a task's row did, each in its turn, round after round."""
    sides = (
        Side(world, kind, args.venvs)
        for world in (f"umwelten/{task}", *LIKE[task].split())
        for kind in ROWS[name][0]
        if kind in KINDS.get(world.partition("/")[0], ANY)
    )
    # Where the start is timed, one after the other; else all at once.
    sides = [side.start() for side in (sides if name == "state" else list(sides))]
    for _ in range(args.rounds if name != "check" else 0):
        for side in sides:
            side.take_turn(args.seconds / (1 if name == "vector" else 2))
    entries = [side.close() for side in sides]
    mine = [e for e in entries if e["world"].startswith("umwelten/") and "note" not in e]
    for e in entries:
        if e not in mine:
            e["ours_over_it"] = {
                key: max((m[key] / e[key]) ** sign for m in mine)
                for key, sign in ROWS[name][1].items()
                if mine and key in e
            }
        figures = [f"{key} {e[key]:,.2f}" for key in ROWS[name][1] if key in e]
        said = e.get("note") or ", ".join(figures) or e
        print(f"{name:<7}{e['world']:<50}{e['kind']:<11}{said}", flush=True)
    return entries


def goals(table: dict) -> dict[str, dict]:
    """Returns our figures over the peers', more than 1 where ours are better, by goal."""
    met = {"5 x Gymnasium's vectors": {}, "1 x EnvPool": {}, "50 x pictures": {}, "behind": {}}
    for task, rows in table.items():
        for e in [e for entries in rows.values() for e in entries]:
            peer_, kind = e["world"].partition("/")[0], e["kind"]
            for key, ratio in e.get("ours_over_it", {}).items():
                alike = key == "per_s" and task in list(LIKE)[:2]
                wanted = {
                    "behind": ratio < 1 and peer_ != "envpool",
                    "5 x Gymnasium's vectors": alike and kind in ("sync", "async"),
                    "1 x EnvPool": alike and peer_ == "envpool",
                    "50 x pictures": kind in peer.SIZES and peer_ != "minigrid",
                }
                for goal in [goal for goal in met if wanted[goal]]:
                    met[goal][f"{e['world']} {kind} {key}"] = round(ratio, 3)
    return met


def ours(task: str, kind: str) -> peer.World:
    """Returns a world of ours, of a kind that `peer` knows, or "..._rows": ROWS with pictures."""
    import gymnasium

    from umwelten import registry

    member = registry.find("envs", task.partition("/")[2])
    dt, view = member.constants["control_dt"], {}
    if size := peer.SIZES.get(kind.removesuffix("_rows")):
        view = {"cameras": (member.constants["camera"],), "size": (size, size)}
    id_ = f"umwelten:{registry.gym_id(member)}"
    if kind == "native" or kind.endswith("_rows"):
        return peer.vector(gymnasium.make_vec(id_, num_envs=peer.ROWS, **view), dt)
    env = gymnasium.make(id_, **view)
    if kind == "check":
        peer.check(env)
    return peer.single(env, dt)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--venvs", type=Path, default=Path("peers"), help="folder of the Pythons")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn; half for one world")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=LIKE, default=list(LIKE))
    parser.add_argument("--ours", nargs=2, metavar=("WORLD", "KIND"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.ours:
        return peer.serve(ours, *args.ours)
    os.environ |= {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", "OMP_NUM_THREADS": "1"}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    table = {task: {name: row(task, name, args) for name in ROWS} for task in args.tasks}
    met = goals(table)
    print(json.dumps(met, indent=1))
    print(record("peers", {"table": table, "ours_over_theirs": met}))


if __name__ == "__main__":
    main()
