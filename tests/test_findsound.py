"""FindSound: the ears alone tell which box beeps, by the laws of sound, and that is enough."""

import mujoco
import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import findsound
from umwelten.envs.env import BatchEnv
from umwelten.robots import rover
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

N = 40
HEAD, BOX = np.array([-0.03, 0.0, 0.37]), 0.12  # m: the ears' middle in the rover, a box's height


def run(env, policy):
    """The steps of one episode of each row, as `{key: (t, n, ...)}`."""
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def expected(place):
    """What the ears hear of a source at `place` (3,) in the rover's frame: worked out anew."""
    level, far = [], []
    for side, angle in ((1, np.deg2rad(55)), (-1, -np.deg2rad(55))):  # the left ear is at +y
        way = place - HEAD - (0, side * 0.085, 0)
        r = np.linalg.norm(way)
        cosine = way @ (np.cos(angle), np.sin(angle), 0) / r
        level.append((1 + cosine) / 2 / r)
        far.append(r)
    over = np.clip(20 * np.log10(level[0] / level[1]), -60, 60)
    return np.array([*level, (far[1] - far[0]) / 343 * 1000, over])


def heard(env, place):
    """What `hear` says of a source at `place` (3,), with the rover at the origin, facing +x."""
    env.sim.qpos[:] = rover.home()
    env.sim.forward(np.arange(env.sim.n))
    return findsound.hear(env.sim, np.tile(place, (env.sim.n, 1)), np.ones(env.sim.n))[0]


@pytest.fixture(scope="module")
def env():
    env = BatchEnv("FindSound", 2, nthread=1)
    env.reset(seed=0)
    return env


def test_the_ears_hear_what_the_laws_of_sound_say(env):
    for place in np.random.default_rng(0).uniform((-2, -2, 0), (2, 2, 0.5), (20, 3)):
        np.testing.assert_allclose(heard(env, place), expected(place), rtol=1e-9, atol=1e-12)


def test_far_away_time_and_level_are_those_of_a_plane_wave(env):
    for degrees in (-150, -60, 0, 20, 90):
        angle = np.deg2rad(degrees)
        one, two = (
            heard(env, HEAD + r * np.array([np.cos(angle), np.sin(angle), 0])) for r in (200, 400)
        )
        assert one[2] == pytest.approx(170 * np.sin(angle) / 343, abs=1e-4)  # 17 cm, in ms
        assert one[0] / two[0] == pytest.approx(2, rel=1e-3)  # half as loud twice as far away
    ahead, behind = (heard(env, HEAD + np.array([x, 0, 0])) for x in (2, -2))
    assert abs(ahead[3]) < 1e-9 and ahead[0] > 3 * behind[0]  # what is behind sounds fainter
    left = heard(env, HEAD + np.array([0, 2, 0]))
    assert left[0] > left[1] and left[2] > 0 and left[3] > 0


def test_it_beeps_half_of_the_time_and_is_silent_between():
    env = BatchEnv("FindSound", 20)
    obs, _ = env.reset(seed=3)
    sounds = [obs["ears"]]
    for _ in range(31):
        sounds.append(env.step(np.zeros((20, 2)))[0]["ears"])
    on = np.stack(sounds)[..., 0] > 0
    assert np.array_equal(on[:-8], on[8:]) and (on.mean(0) == 0.5).all()
    assert not np.stack(sounds)[~on].any()
    assert len({tuple(row) for row in on[:8].T}) > 3  # the rows begin at their own times


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


def guess(env, ears, boxes):
    """Which box the ears (t, n, 4) meant, by what each place would sound like, `(n,)`."""
    out = []
    for i in range(env.num_envs):
        t = int(np.argmax(ears[:, i, 0] > 0))
        told = [expected(np.append(p, BOX)) for p in boxes[t, i].reshape(4, 2)]
        off = [np.abs(ears[t, i] - e) @ (10, 10, 10, 0.2) for e in told]
        out.append(int(np.argmin(off)))
    return np.array(out)


@pytest.mark.parametrize("deaf", [False, True])
def test_who_listens_finds_it_and_who_is_deaf_does_not(deaf):
    """The ears give the guess, the guess gives the way; without ears a guess is one of four."""
    n = 40
    env = BatchEnv("FindSound", n)
    env.reset(seed=HELD_OUT)
    steps = [env.step(np.zeros((n, 2)))[0] for _ in range(8)]
    ears = np.stack([s["ears"] for s in steps])
    truth = env.sim.userdata[:, 0].copy()
    meant = guess(env, 0 * ears if deaf else ears, np.stack([s["objects"] for s in steps]))
    for _ in range(110):
        env.sim.userdata[:, 0] = meant
        action = env.expert()
        env.sim.userdata[:, 0] = truth
        env.step(action)
    found = env.task.success(env.sim).mean()
    assert found < 0.5 if deaf else found >= 0.95


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
