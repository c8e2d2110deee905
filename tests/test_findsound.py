"""FindSound: the ears alone tell which box beeps, by the law of `audio`, and that is enough."""

import mujoco
import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs.audio import FULL_SCALE, Speaker
from umwelten.envs.env import BatchEnv
from umwelten.envs.findsound import FindSound
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

N = 40
HERTZ, PITCH = 16000, 900
HEAD, BOX = np.array([-0.03, 0.0, 0.37]), 0.12  # m: the ears' middle in the rover, a box's height


def run(env, policy):
    """The steps of one episode of each row, as `{key: (t, n, ...)}`."""
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def expected(place):
    """Amplitudes (Pa) at both ears of a beep at `place` (3,) in the rover's frame, and its lead."""
    level, far = [], []
    for side in (1, -1):  # the left ear is at +y
        way = place - HEAD - (0, side * 0.09, 0)
        r = np.linalg.norm(way)
        level.append((3 + side * way[1] / r) / 4 / r)
        far.append(r)
    return np.array([*level, (far[1] - far[0]) / 343 * 1000])


def tones(audio):
    """What is in samples (n, k, 2) of the beep's pitch, complex, Pa: their last quarter (n, 2)."""
    t = np.arange(audio.shape[1])[-400:, None]
    return 2 * FULL_SCALE * (audio[:, -400:] * np.exp(-2j * np.pi * PITCH * t / HERTZ)).mean(1)


class Mute(FindSound):
    """Test: no box beeps."""

    def speakers(self, sim):
        return tuple(Speaker(s.place, s.hertz, 0 * s.loud) for s in super().speakers(sim))


def listen(env, steps, action, seed=3):
    """Observations `{key: (t, n, ...)}` of the first steps under one action."""
    env.reset(seed=seed)
    seen = [env.step(np.tile(action, (env.num_envs, 1)))[0] for _ in range(steps)]
    return {k: np.stack([s[k] for s in seen]) for k in seen[0]}


def test_the_few_numbers_are_those_of_the_samples_and_of_the_law():
    env = BatchEnv("FindSound", 12, senses=("audio",))
    obs = listen(env, 9, (0.0, 0.0))
    sure = 0
    for t in range(1, 9):
        on = (obs["ears"][t - 1 : t + 1, :, 0] > 0).all(0)  # and so at its full loudness
        heard, told = tones(obs["audio"][t][on]), obs["ears"][t][on]
        np.testing.assert_allclose(np.abs(heard), told[:, :2], rtol=0.03)
        lead = np.angle(heard[:, 0] / heard[:, 1]) / (2 * np.pi * PITCH) * 1000
        np.testing.assert_allclose(lead, told[:, 2], atol=0.01)
        np.testing.assert_allclose(told[:, 3], 20 * np.log10(told[:, 0] / told[:, 1]), atol=1e-4)
        box = obs["objects"][t].reshape(12, 4, 2)[np.arange(12), env.sim.userdata[:, 0].astype(int)]
        truth = np.array([expected(np.append(p, BOX)) for p in box[on]])
        np.testing.assert_allclose(told[:, :3], truth, atol=2e-3)
        sure += on.sum()
    assert sure > 30


def test_it_beeps_half_of_the_time_and_is_silent_between():
    env = BatchEnv("FindSound", 20, senses=("audio",))
    obs = listen(env, 32, (0.0, 0.0))
    on = obs["ears"][..., 0] > 0
    assert np.array_equal(on[:-8], on[8:]) and (on[:24].mean(0) == 0.5).all()
    assert not obs["ears"][~on].any()
    assert len({tuple(row) for row in on[:8].T}) > 3  # the rows begin at their own times
    for t in range(10, 32):  # the rover has come to rest
        silent = ~on[t - 2 : t + 1].any(0)  # a step after the last sound has passed by
        assert not obs["audio"][t, silent].any()
        assert (np.abs(obs["audio"][t, on[t]]).max((1, 2)) > 0.005).all()


def test_where_nothing_beeps_a_standing_rover_hears_nothing():
    obs = listen(BatchEnv(Mute(), 4, senses=("audio",)), 12, (0.0, 0.0))
    assert not obs["ears"].any() and not obs["audio"][9:].any()  # it has come to rest
    driving = listen(BatchEnv(Mute(), 4, senses=("audio",)), 12, (1.0, 0.5))["audio"]
    assert np.abs(tones(driving[-1])).max() < 0.05  # Pa: its wheels do not drown a beep


def test_nothing_but_the_ears_tells_which_box_it_is():
    env = BatchEnv("FindSound", 12, cameras=("head",), size=(16, 16))
    env.reset(seed=0)
    told = []
    for which in range(4):
        env.sim.userdata[:, 0] = which
        obs, words = env._observe(), [env.task.instruction(env.sim, i) for i in range(12)]
        told.append(({k: v for k, v in obs.items() if k != "ears"}, words, obs["ears"]))
    for obs, words, ears in told[1:]:
        assert all(np.array_equal(v, told[0][0][k]) for k, v in obs.items())
        assert words == told[0][1]
        sounding = ears[:, 0] > 0
        assert (ears != told[0][2])[sounding].any(1).all() and sounding.any()


def guess(audio, boxes):
    """Which box samples (t, n, k, 2) meant, `(n,)`, by what each place (t, n, 4, 2) sounds like.

    By levels alone, and as the rover turns, so that what is ahead is told from what is behind.
    """
    odds = np.zeros(boxes.shape[1:3])
    for now, before, spots in zip(audio[1:], audio[:-1], boxes[1:], strict=True):
        level, last = np.abs(tones(now)), np.abs(tones(before))
        steady = (last.sum(1) > 0.7 * level.sum(1)) & (level.sum(1) > 0.7 * last.sum(1))
        for i in np.flatnonzero(steady & (level.min(1) > 0.02)):
            law = np.array([expected(np.append(p, BOX))[:2] for p in spots[i]])
            odds[i] -= np.abs(np.log(level[i] / law)).sum(1)
    return odds.argmax(1)


def test_who_listens_to_samples_alone_finds_it_and_who_is_deaf_does_not():
    """The samples give the guess, the guess gives the way; a deaf guess is one of four."""
    n = 24
    env = BatchEnv("FindSound", n, senses=("audio",))
    obs = listen(env, 16, (0.0, 0.4), seed=HELD_OUT)
    truth = env.sim.userdata[:, 0].copy()
    boxes = obs["objects"].reshape(16, n, 4, 2)
    meant = guess(obs["audio"], boxes)
    assert (meant == truth).mean() >= 0.95 and (
        guess(0 * obs["audio"], boxes) == truth
    ).mean() < 0.5
    for _ in range(110):
        env.sim.userdata[:, 0] = meant
        action = env.expert()
        env.sim.userdata[:, 0] = truth
        env.step(action)
    assert env.task.success(env.sim).mean() >= 0.95


def test_the_expert_arrives_and_stays_and_rewards_say_so():
    env = BatchEnv("FindSound", N, labels=True)
    episode = run(env, Expert(env))
    success, reward, stage = (episode[k] for k in ("label/success", "reward", "label/subtask"))
    assert success[-1].mean() >= 0.95
    assert (reward[1:][success[1:]] == 1).all() and 0 <= reward[1:][~success[1:]].max() < 0.96
    assert np.array_equal(stage == 2, success) and (stage[0] == 0).all()
    assert set(np.unique(stage)) == {0, 1, 2}
    assert np.array_equal(episode["label/target"][0], env.sim.userdata[:, 0])


def test_chance_does_not_arrive():
    env = BatchEnv("FindSound", N, labels=True)
    assert run(env, Random(2))["label/success"][-1].mean() <= 0.10


@pytest.mark.parametrize("split, phrases", [("train", {0, 1}), ("test_phrasings", {2})])
def test_a_phrase_is_of_the_split_asked_for(split, phrases):
    env = BatchEnv("FindSound", 20, split=split)
    env.reset(seed=0)
    assert set(env.sim.userdata[:, 1].astype(int)) == phrases


def test_boxes_look_alike_and_stand_apart():
    env = BatchEnv("FindSound", 10)
    env.reset(seed=HELD_OUT)
    model = env.model
    ids = [model.geom(name).id for name in ("box", "box2", "box3", "box4")]
    assert len({(*model.geom_rgba[g], *model.geom_size[g]) for g in ids}) == 1
    for i in range(10):
        data = env.sim.batch.get_data(i)
        mujoco.mj_forward(model, data)
        assert data.ncon <= 3
        spots = env.sim.mocap_pos[i, :4, :2]
        gaps = np.linalg.norm(spots[:, None] - spots, axis=2)[np.triu_indices(4, 1)]
        assert gaps.min() >= 1.1
