"""Collect and play: a policy's episodes, to a folder to learn from or to a video to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .config import ConfigError, at_least
from .rollout import Step, rollout


def collect(
    task: str,
    policy: str = "expert",
    episodes: int = 50,
    out: str = "",
    run: str = "",
    n: int = 16,
    seed: int = 0,
    cameras: tuple = (),
    size: int = 64,
    labels: bool = False,
    physics: bool = False,
    action_repeat: int = 1,
    video: int = 3,
    world: dict | None = None,
) -> None:
    """Records whole episodes of a policy into a folder, and a video of the first ones.

    The same command goes on where it was stopped: an episode that is there is not recorded again.

    task: what is asked, as `umwelten list tasks` says
    policy: random, expert, a planner, or prior, bc, ppo, sac, td3 (of a run)
    episodes: how many, those that are there already included
    out: the folder, default runs/<task>-<policy>
    run: folder of a training whose model plans
    n: episodes at a time, at most
    seed: the first episode's; the next ones count on
    cameras: names of cameras to record rgb, depth and segmentation of
    size: height and width of their images
    labels: record ground truth too
    physics: record the whole simulation rows too, for exact replay
    action_repeat: control steps that an action lasts; a run's own where one is given
    video: how many episodes the video shows
    world: robot, control, split, senses, vary, reward: world.robot=so101 world.vary=[mass,light]

    umwelten collect task=pick_place policy=expert episodes=50
    umwelten collect task=push episodes=20 cameras=[front,wrist] labels=true
    """
    from rich.progress import track

    from . import build
    from .episodes import Recorder

    at_least(1, episodes=episodes, n=n)
    folder = Path(out or f"runs/{task}-{policy}")
    plans = policy not in ("random", "expert") and not run
    told = build.world_of(run, action_repeat, cameras, world)
    env = build.make_env(
        task, min(episodes, n), size=(size, size), labels=labels, physics=physics or plans, **told
    )
    actor = build.make_policy(policy, env, run)
    info = {
        "task": type(env.task).__name__, "policy": type(actor).__name__, "run": str(run),
        "fingerprint": env.fingerprint, "fps": env.metadata["render_fps"], "labels": labels,
        "physics": physics or plans, "cameras": [*told["cameras"]], "size": size,
        "action_repeat": told["action_repeat"], "world": told["world"],
    }  # fmt: skip
    have = seeds_there(folder, info)
    todo = [s for s in range(seed, seed + episodes) if s not in have]
    if video and not (folder / "first.mp4").exists():
        shown = min(video, episodes)
        path = film(task, policy, folder / "first.mp4", run, shown, seed, env.action_repeat, world)
        print(f"video of the first episodes: {path}")
    steps = round(env.task.time_limit / env.task.control_dt / env.action_repeat) + 1
    total = steps * -(-len(todo) // env.num_envs)
    with Recorder(folder, info) as recorder:
        for step in track(one_each(env, actor, todo), "collecting", total=total):
            recorder.add(step)
    print(f"{len(todo)} episodes more in {folder}, {len(have) + len(todo)} in all")


def seeds_there(folder: Path, info: dict) -> set[int]:
    """Returns the seeds of the episodes that are there; ConfigError if they are of another kind."""
    from .episodes import Episodes
    from .shards import shard_names

    if not folder.exists() or not shard_names(folder):
        return set()
    there = Episodes(folder, keys=())
    other = [k for k in info if there.info.get(k) != info[k]]
    if other:
        raise ConfigError(
            f"{folder} holds episodes of another {', '.join(other)}; choose another out="
        )
    return set(there.column("episode/seed").tolist())


def one_each(env, policy, seeds: Sequence[int]) -> Iterator[Step]:
    """Yields the steps of one episode for each seed, env.num_envs at a time."""
    n = env.num_envs
    for at in range(0, len(seeds), n):
        part = [*seeds[at : at + n]]
        wanted = np.arange(n) < len(part)
        part += part[-1:] * (n - len(part))  # rows that are left over open no episode
        for step in rollout(env, policy, part, episodes_per_row=1):
            flags = {k: step[k] & wanted for k in ("first", "last")}
            yield step | flags | {"episode/seed": np.array(part, np.int64)}


def play(
    task: str,
    policy: str = "expert",
    run: str = "",
    episodes: int = 1,
    seed: int = 0,
    out: str = "",
    action_repeat: int = 1,
    world: dict | None = None,
) -> None:
    """Films a policy: an mp4 of whole episodes, with what was asked and whether it was done.

    task: what is asked, as `umwelten list tasks` says
    policy: random, expert, a planner, or prior, bc, ppo, sac, td3 (of a run)
    run: folder of a training whose model plans
    episodes: how many, one after the other
    seed: the first episode's; the next ones count on
    out: the file, default runs/<task>-<policy>.mp4
    action_repeat: control steps that an action lasts; a run's own where one is given
    world: robot, control, split, senses, vary, reward: world.robot=panda

    umwelten play task=push
    umwelten play task=reach policy=mppi run=runs/demo/train
    """
    at_least(1, episodes=episodes)
    path = Path(out or f"runs/{task}-{policy}.mp4")
    print(f"video: {film(task, policy, path, run, episodes, seed, action_repeat, world)}")


def film(
    task: str, policy: str, path: Path, run: str, episodes: int, seed: int,
    action_repeat: int = 1, world: dict | None = None,
) -> Path:  # fmt: skip
    """Writes an mp4 of the episodes that rows with the seeds seed, seed + 1, ... begin with."""
    from . import build, video

    plans = policy not in ("random", "expert") and not run
    told = build.world_of(run, action_repeat, (), world)
    env = build.make_env(task, 1, render_mode="rgb_array", physics=plans, **told)
    actor = build.make_policy(policy, env, run)

    def frames():
        for k in range(episodes):
            for step in rollout(env, actor, [seed + k], episodes_per_row=1):
                yield env.render()[0]
                if step["last"][0]:
                    break
            won = bool(step["label/success"][0])
            words = str(env.words()[0]) or task
            print(f"  {words}: {'done' if won else 'not done'}")

    return video.write(path, frames(), fps=env.metadata["render_fps"])
