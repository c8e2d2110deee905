"""Audio: silence, modes, distance, direction and loudness, against closed forms."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import sound
from umwelten.envs.audio import (
    FULL_SCALE,
    MATERIALS,
    RATIOS,
    SPEED,
    Audio,
    Speaker,
    decays,
    frequencies,
)
from umwelten.envs.control import Direct
from umwelten.envs.env import BatchEnv
from umwelten.envs.task import Task

HERTZ = 16000


class Drop(Task):
    """Test: a ball of 8 cm falls from `height` m above a floor, beside a microphone head."""

    control_dt = 0.02
    time_limit = 100.0
    control = Direct()
    camera = "head"

    def __init__(self, height=0.1, at=(0.0, 1.0), speed=0.0, material="steel", friction=0.0):
        # The head is at the origin, looks along y; its right is x.
        self.xml = f"""<mujoco><option timestep="0.002"/>
          <asset><material name="{material}"/></asset><worldbody>
          <geom name="floor" type="plane" size="9 9 .1" friction="{friction}"/>
          <camera name="head" pos="0 0 .04" xyaxes="1 0 0 0 0 1"/>
          <body name="ball" pos="{at[0]} {at[1]} {0.04 + height}"><freejoint/>
            <geom type="sphere" size=".04" mass=".2" material="{material}"
              friction="{friction} 0 0" solref="-100000 -100"/></body>
          <body pos="30 30 1"><joint name="idle"/><geom size=".01" mass=".01" contype="0"
            conaffinity="0"/></body></worldbody>
          <actuator><motor joint="idle" ctrlrange="-1 1"/></actuator></mujoco>"""
        self.speed = speed

    def spec(self):
        return mujoco.MjSpec.from_string(self.xml)

    def reset(self, sim, i, rng):
        sim.qvel[i, 0] = self.speed

    def observe(self, sim):
        return {"place": sim.qpos[:, :3]}

    def terms(self, sim):
        return {"none": np.zeros(sim.n)}

    def success(self, sim):
        return np.zeros(sim.n, bool)


def heard(steps=25, audio=None, seed=0, **drop):
    """The sound (samples, 2) of so many control steps of 20 ms."""
    env = BatchEnv(Drop(**drop), 1, nthread=1, senses=(audio or Audio(),))
    parts = [env.reset(seed=seed)[0]["audio"][0, :0]]
    for _ in range(steps):
        parts.append(env.step(np.zeros((1, 1)))[0]["audio"][0])
    return np.concatenate(parts).astype(float)


def test_a_silent_scene_is_exactly_silent():
    assert not heard(height=0.0).any()  # a ball at rest
    assert not heard(steps=5, height=3.0).any()  # and one that falls and meets nothing yet
    env = BatchEnv("PickPlace", 8, nthread=1, senses=("audio",))
    env.reset(seed=0)
    rest = np.zeros((8, 4), np.float32)
    assert not any(env.step(rest)[0]["audio"].any() for _ in range(20))
    assert heard(height=0.1).any()  # negative control


@pytest.mark.parametrize("material", ["steel", "wood", "plastic"])
def test_a_dropped_ball_rings_at_its_modes_and_dies_away(material):
    wave = heard(steps=30, material=material, height=0.02)[:, 0]
    start = np.flatnonzero(wave)[0]
    # The first impact alone: until the next one.
    wave = wave[start : start + 1600]
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 2**15))
    peak = np.fft.rfftfreq(2**15, 1 / HERTZ)[spectrum.argmax()]
    first = frequencies(material, 0.08)[0]
    assert abs(peak - first) < 10
    early, late = (np.sqrt((wave[k : k + 200] ** 2).mean()) for k in (200, 600))
    rate = np.log(early / late) / (400 / HERTZ)
    assert abs(rate / decays(material, 0.08)[0] - 1) < 0.2


def test_modes_are_those_of_a_bar_and_fall_with_its_length():
    for name, material in MATERIALS.items():
        f = frequencies(name, 0.1)
        np.testing.assert_allclose(f / f[0], RATIOS)
        np.testing.assert_allclose(frequencies(name, 0.2), f / 2)
        # Amplitude falls by e in 1 / (pi f loss): a loss factor's definition.
        np.testing.assert_allclose(decays(name, 0.1), np.pi * f * material.loss)
    # 1.028 h c / l^2 with h = 0.03 l, steel: c = 5048 m/s.
    np.testing.assert_allclose(frequencies("steel", 0.1)[0], 1556.6, rtol=1e-3)


def loudness(wave):
    return np.sqrt((wave**2).sum(0))


def test_twice_the_distance_is_half_the_amplitude_and_later_by_the_way():
    near, far = heard(at=(0, 1.0)), heard(at=(0, 2.0))
    np.testing.assert_allclose(loudness(near) / loudness(far), 2, rtol=0.02)
    onset = [np.flatnonzero(np.abs(w[:, 0]) > 0)[0] for w in (near, far)]
    assert abs((onset[1] - onset[0]) - HERTZ / SPEED) <= 2
    np.testing.assert_array_equal(near[:, 0], near[:, 1])  # straight ahead: both ears alike


def test_a_source_on_the_left_is_louder_and_earlier_in_the_left_ear():
    left, right = heard(at=(-1.0, 0)), heard(at=(1.0, 0))
    loud = loudness(left)
    assert loud[0] > 1.5 * loud[1]
    onset = [np.flatnonzero(left[:, k])[0] for k in (0, 1)]
    assert abs((onset[1] - onset[0]) - 0.18 / SPEED * HERTZ) <= 1
    np.testing.assert_allclose(left, right[:, ::-1], atol=1e-12)  # the mirror image
    # A head turned by half a circle hears it on its other side: x axis reversed.
    wide = heard(at=(-1.0, 0), audio=Audio(head=0.3))
    onset = [np.flatnonzero(wide[:, k])[0] for k in (0, 1)]
    assert abs((onset[1] - onset[0]) - 0.3 / SPEED * HERTZ) <= 1


def test_a_harder_impact_is_louder_in_proportion():
    loud = [loudness(heard(steps=40, height=h)[:, :1])[0] for h in (0.01, 0.04, 0.16)]
    assert loud[0] < loud[1] < loud[2]
    peaks = [np.abs(heard(steps=40, height=h)).max() for h in (0.01, 0.04, 0.16)]
    # Four times the height is twice the speed, and so about twice the momentum.
    assert 1.5 < peaks[1] / peaks[0] < 2.8 and 1.5 < peaks[2] / peaks[1] < 2.8
    assert peaks[2] < 1  # not clipped


def test_sliding_hisses_with_the_power_of_friction():
    still = heard(height=0.0, friction=0.3)
    slow, fast = (heard(steps=5, height=0.0, speed=v, friction=0.3) for v in (0.5, 1.0))
    smooth = heard(steps=5, height=0.0, speed=1.0, friction=0.0)
    assert not still.any()
    assert loudness(smooth)[0] < 1e-3 * loudness(slow)[0]  # the engine's least friction is not 0
    # Slip v falls evenly, for a time as v, until the ball rolls: the power's square adds up to v^3.
    np.testing.assert_allclose(loudness(fast) / loudness(slow), 2**1.5, rtol=0.15)
    again = heard(steps=5, height=0.0, speed=1.0, friction=0.3, seed=1)
    assert not np.array_equal(again, fast)  # noise, of the row's own seed
    np.testing.assert_array_equal(heard(seed=1), heard())  # which an impact is not


def test_the_material_may_be_told():
    told = heard(audio=Audio(materials=(("ball", "wood"),)), material="steel")
    np.testing.assert_array_equal(told, heard(material="wood"))
    assert not np.array_equal(told, heard(material="steel"))


def test_the_loop_is_the_sum_of_damped_sines():
    """Against numpy: one strike, one source, ears at a fixed way."""
    f, d, gain = 1000.0, 50.0, 0.3
    turn, die = 2 * np.pi * f / HERTZ, np.exp(-d / HERTZ)
    modes = np.array([[[[2 * die * np.cos(turn), -(die**2), np.sin(turn)]]]])
    motion, echo = np.zeros((1, 1, 1, 2)), np.zeros((1, 64, 2))
    way = np.zeros((1, 1, 2, 2))
    way[0, 0] = [[gain, 10.0], [gain / 2, 20.5]]
    out = [np.zeros((1, 160, 2)) for _ in range(3)]
    for k, part in enumerate(out):
        strike = np.array([[[1.0], [0.0]]]) if k == 0 else np.zeros((1, 2, 1))
        sound.sing(
            np.array([0]), strike, np.zeros((1, 2, 1)), np.zeros(1, np.uint64),
            modes, motion, way, way[:1].copy(), echo, part,
        )  # fmt: skip
    got = np.concatenate(out, 1)[0]
    t = np.arange(480)
    truth = np.exp(-d * t / HERTZ) * np.sin(turn * (t + 1))
    np.testing.assert_allclose(got[10:, 0], gain * truth[:-10], atol=1e-9)
    between = (truth[:-21] + truth[1:-20]) / 2
    np.testing.assert_allclose(got[21:, 1], gain / 2 * between, atol=1e-9)
    assert not got[:10].any()


def speaker(place, hertz=500.0, loud=lambda sim: np.ones(sim.n)):
    """A sense that hears a speaker of 1 Pa, with the head at the origin."""

    def said(sim):
        where = np.tile(np.append(place, 0.04), (sim.n, 1))
        return (Speaker(where, np.full(sim.n, hertz), loud(sim)),)

    return Audio(speakers=said)


def test_a_speaker_is_a_pure_tone_late_and_faint_by_its_way():
    wave = heard(audio=speaker((0.0, 2.0)), height=0.0)
    assert np.array_equal(wave[:, 0], wave[:, 1])
    far = np.hypot(2.0, 0.09)
    t = np.arange(len(wave)) + 1 - far / SPEED * HERTZ
    level = (1 - 0.5 * (1 + 0.09 / far) / 2) / far / FULL_SCALE
    truth = level * np.sin(2 * np.pi * 500 * t / HERTZ)
    np.testing.assert_allclose(wave[700:, 0], truth[700:], atol=0.006 * level)  # once it is up
    spectrum = np.abs(np.fft.rfft(wave[-4000:, 0] * np.hanning(4000)))
    assert np.fft.rfftfreq(4000, 1 / HERTZ)[spectrum.argmax()] == 500


def test_a_speaker_is_heard_by_the_law_of_contacts():
    near, far = (heard(audio=speaker((0.0, r)), height=0.0)[700:] for r in (1.0, 2.0))
    np.testing.assert_allclose(loudness(near) / loudness(far), 2, rtol=0.02)
    left, right = (heard(audio=speaker((x, 0.0)), height=0.0) for x in (-1.0, 1.0))
    np.testing.assert_array_equal(left, right[:, ::-1])
    loud, struck = loudness(left[700:]), loudness(heard(at=(-1.0, 0)))
    np.testing.assert_allclose(loud[0] / loud[1], struck[0] / struck[1], rtol=0.05)
    onset = [np.flatnonzero(left[:, k])[0] for k in (0, 1)]
    assert abs((onset[1] - onset[0]) - 0.18 / SPEED * HERTZ) <= 1


def test_a_speaker_sounds_when_the_state_says_so_and_adds_to_contacts():
    now_and_then = speaker((0.0, 1.0), loud=lambda sim: 1.0 * (sim.time % 0.2 > 0.1))
    alone = heard(audio=now_and_then, height=0.0, steps=30)
    assert not heard(audio=speaker((0.0, 1.0), loud=lambda sim: np.zeros(sim.n)), height=0.0).any()
    on = np.abs(alone.reshape(30, -1, 2)).max((1, 2)) > 0
    assert 12 <= on.sum() <= 24 and not on[:4].any()
    both, struck = heard(audio=now_and_then, steps=30), heard(steps=30)
    assert struck.any()
    np.testing.assert_allclose(both, alone + struck, atol=1e-7)
    other = heard(audio=speaker((0.0, 1.0), hertz=1000.0), height=0.0)[-1600:, 0]
    assert np.abs(np.fft.rfft(other)).argmax() == 100


def test_speakers_go_on_from_a_snapshot_and_do_not_depend_on_n():
    def world(n):
        return BatchEnv("FindSound", n, nthread=1, senses=("audio",))

    env, alone, again = world(3), world(1), world(3)
    env.reset(seed=0), alone.reset(seed=2), again.reset(seed=9)
    acts = np.random.default_rng(0).uniform(-1, 1, (12, 2))
    for t, act in enumerate(acts):
        obs = env.step(np.tile(act, (3, 1)))[0]["audio"]
        assert np.array_equal(obs[2:], alone.step(act[None])[0]["audio"])
        if t == 5:
            snapshot = env.save()
    again.load(snapshot)
    for act in acts[6:]:
        last = again.step(np.tile(act, (3, 1)))[0]["audio"]
    assert np.array_equal(last, obs) and obs.any()
