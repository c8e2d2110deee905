"""Start-up: seconds to import and to make an environment, and the memory it then holds.

Every figure is the median over child processes of their own clock and the
resident memory at its end (Linux).
Usage: python benchmarks/startup.py [repeats]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from record import record

PREAMBLE = """
import json, re, sys, time
start = time.perf_counter()
{code}
seconds = time.perf_counter() - start
resident = int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([seconds, resident, "torch" in sys.modules]))
"""
BEFORE = "import umwelten, gymnasium as gym, mujoco; start = time.perf_counter()"
PLAY = "env.reset(seed=0); [env.step(env.action_space.sample()) for _ in range(20)]"
CASES = {
    "python alone": "",
    "import gymnasium": "import gymnasium",
    "import umwelten": "import umwelten",
    "umwelten --help": "from umwelten import cli; cli.overview()",
    "gym.make after imports": f"{BEFORE}\nenv = gym.make('umwelten/PickPlace-v0')",
    "first episode, vectors": "import umwelten, gymnasium as gym\n"
    f"env = gym.make('umwelten/PickPlace-v0'); {PLAY}",
    "first episode, rays": "import umwelten, gymnasium as gym\n"
    f"env = gym.make('umwelten/PickPlace-v0', cameras=('front',)); {PLAY}",
}


def measure(code: str) -> tuple[float, float, bool]:
    """Returns the seconds, the resident MiB and whether torch came along, of one process."""
    command = [sys.executable, "-c", PREAMBLE.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measures every case in turn, so that a busy moment falls on all alike."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    taken = {name: [] for name in CASES}
    for name in CASES:
        measure(CASES[name])  # fills the caches of files and compiled kernels
    for _ in range(repeats):
        for name, code in CASES.items():
            taken[name].append(measure(code))
    results = {}
    for name, runs in taken.items():
        seconds, resident, torch = zip(*runs, strict=True)
        results[name] = {
            "seconds": round(statistics.median(seconds), 3),
            "resident_mib": round(statistics.median(resident), 1),
            "imports_torch": any(torch),
        }
        print(f"{name:<24} {results[name]}")
    print(record("startup", {"repeats": repeats, **results}))


if __name__ == "__main__":
    main()
