"""Promises of shard files: whole or absent through any death, and nothing altered is taken in."""

import errno
import json
import math
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from umwelten import shards
from umwelten.episodes import Episodes, Recorder, set_aside


def stream(lengths, n=2, width=3):
    """Makes the steps of n rows with episodes of these lengths, row i beginning i steps late."""
    rng = np.random.default_rng(0)
    line = [(t, length) for length in lengths for t in range(length)]
    steps = []
    for k in range(len(line) + n - 1):
        now = [line[k - i] if 0 <= k - i < len(line) else (-1, 9) for i in range(n)]
        steps.append(
            {
                "first": np.array([t == 0 for t, _ in now]),
                "last": np.array([t == length - 1 for t, length in now]),
                "terminal": np.zeros(n, bool),
                "valid": np.ones(n, bool),
                "reward": rng.random(n),
                "action": rng.random((n, 2)),
                "proprio": rng.random((n, width)),
                "label/contact": rng.random(n) < 0.5,
                "label/number": rng.integers(0, 9, n, np.int32),
                "episode/seed": np.arange(n),
            }
        )
    return steps


def record(folder, steps):
    with Recorder(folder, info={"task": "Reach"}) as recorder:
        for step in steps:
            recorder.add(step)
    return recorder.names()


def files(folder):
    return {file.name: file.read_bytes() for file in Path(folder).glob("shard-*")}


CHILD = """
import itertools, os, sys
import numpy as np
from umwelten.episodes import Recorder
stage, folder = sys.argv[1:]
def die(*args, **kwargs):
    os._exit(9)
def record():
    start = len(recorder.names())
    for e in itertools.count():
        if e == 2 and stage == "fsync":
            os.fsync = die
        if e == 2 and stage == "replace":
            type(recorder.path).replace = die
        if e == 2 and stage == "replaced":
            replace = type(recorder.path).replace
            type(recorder.path).replace = lambda *args: (replace(*args), die())
        for t in range(20):
            flag = np.ones(2, bool)
            value = np.full((2, 3000), e + t / 100, np.float32)
            done = recorder.add(dict(first=flag & (t == 0), last=flag & (t == 19), terminal=~flag,
                valid=flag, reward=flag * 1.0, action=value[:, :1], proprio=value))
        print(done, flush=True)
recorder = Recorder(folder)
record()
"""


def child(folder, stage="none"):
    command = [sys.executable, "-c", CHILD, stage, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def whole_and_right(folder):
    episodes = Episodes(folder)
    episodes.verify()
    for i in range(len(episodes)):
        value = episodes.episode(i)["proprio"]
        truth = np.float32(np.round(value[0, 0]) + np.arange(20) / 100)
        assert np.allclose(value, truth[:, None], atol=1e-5)
    return len(episodes)


def test_sigkill_at_any_time_loses_no_finished_episode(tmp_path):
    rng, acknowledged = random.Random(0), 0
    for _ in range(6):
        process = child(tmp_path)
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        acknowledged += int(first) + sum(map(int, process.stdout.read().split()))
        process.wait()
        assert acknowledged > 0 and whole_and_right(tmp_path) >= acknowledged
    assert whole_and_right(tmp_path) <= acknowledged + 6 * 2  # one unheard shard of two a kill


@pytest.mark.parametrize("stage, shards_left", [("fsync", 2), ("replace", 2), ("replaced", 3)])
def test_death_at_each_stage_of_writing_leaves_whole_shards(tmp_path, stage, shards_left):
    process = child(tmp_path, stage)
    assert process.stdout.read().split() == ["2", "2"] and process.wait() == 9
    assert whole_and_right(tmp_path) == 2 * shards_left
    names = [f"shard-{i:06d}.safetensors" for i in range(2)]
    set_aside(tmp_path, names)  # a resumed run starts from a clean folder
    assert sorted(file.name for file in tmp_path.iterdir()) == ["aside", *names]


def test_a_shard_is_synced_before_it_appears_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replaced(self, target):
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    record(tmp_path, stream([5], n=1))
    assert calls == ["file", "replace", "folder"]


def test_a_write_that_the_system_refuses_keeps_the_episode_in_hand(tmp_path):
    steps = stream([30, 70], width=100)
    recorder = Recorder(tmp_path, info={"task": "Reach"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for step in steps[:30]:
        recorder.add(step)
    before = files(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a real write fails half-way
        with pytest.raises(
            OSError, match=r"1 finished episodes \(rows \[1\]\) and 1 open ones"
        ) as e:
            recorder.add(steps[30])
        assert e.value.errno == errno.EFBIG
        with pytest.raises(OSError):
            recorder.in_hand()  # a checkpoint must not be made without the finished episode
        assert files(tmp_path) == before and len(list(tmp_path.iterdir())) == len(before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    recorder.flush()
    for step in steps[31:]:
        recorder.add(step)
    record(tmp_path / "right", steps)
    assert files(tmp_path) == files(tmp_path / "right") and len(before) == 1


def test_a_full_disk_is_said_and_survived(tmp_path):
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=False
    )
    if made.returncode:
        pytest.skip("no right to mount a small disk here; the test above limits the file instead")
    try:
        recorder, steps = Recorder(tmp_path), stream([50] * 40, n=1, width=20)
        with pytest.raises(OSError, match="earlier shards are whole") as error:
            for step in steps:
                recorder.add(step)
        assert error.value.errno == errno.ENOSPC
        held = len(Episodes(tmp_path))
        Episodes(tmp_path).verify()
        assert 0 < held < 39 and not list(tmp_path.glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=2m", tmp_path], check=True)
        recorder.flush()
        assert len(Episodes(tmp_path)) == held + 1
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_set_aside_moves_later_shards_and_deletes_none(tmp_path):
    names = record(tmp_path, stream([3, 4, 5]))
    before = files(tmp_path)
    assert set_aside(tmp_path, names) == [] and not (tmp_path / "aside").exists()
    for turn in range(2):  # a run may be resumed twice from one checkpoint
        assert set_aside(tmp_path, names[:2]) == names[2:]
        assert files(tmp_path) == {name: before[name] for name in names[:2]}
        assert files(tmp_path / "aside" / f"{turn:03d}") == {n: before[n] for n in names[2:]}
        assert len(Episodes(tmp_path)) == 2 < len(names)
        for name in names[2:]:
            (tmp_path / name).write_bytes(before[name])
    with pytest.raises(FileNotFoundError, match="shard-000099"):
        set_aside(tmp_path, ["shard-000099.safetensors"])


@pytest.fixture
def shard(tmp_path):
    """A folder with one shard of three episodes."""
    steps = stream([4, 5, 3], n=3)
    for step in steps:  # all rows end at once
        step |= {key: np.repeat(step[key][:1], 3, 0) for key in ("first", "last")}
    record(tmp_path, steps[:4])
    assert len(files(tmp_path)) == 1
    return tmp_path / "shard-000000.safetensors"


def parts(path):
    """Splits a shard into its header as a dict and its data."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :])


def forge(path, header, data):
    """Writes a shard as an attacker would: with the right checksum over what it claims."""
    meta = header.get("__metadata__")
    table = {key: value for key, value in header.items() if key != "__metadata__"}
    columns = {}
    for key in (key for key in table if key.startswith("episode/")):
        start, end = table[key]["data_offsets"]
        columns[key] = np.frombuffer(bytes(data[start:end]), np.uint8)
    if isinstance(meta, dict):
        meta["sha256"] = shards._digest(table, meta, columns)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def put(header, data, key, values):
    """Overwrites the data of a key."""
    raw = np.asarray(values).tobytes()
    start, end = header[key]["data_offsets"]
    assert len(raw) == end - start
    data[start:end] = raw


def moved(by, key="action"):
    def change(h, d):
        h[key]["data_offsets"] = [x + by for x in h[key]["data_offsets"]]

    return change


FORGED = {
    "overlap": lambda h, d: h["action"].update(data_offsets=h["reward"]["data_offsets"]),
    "shifted": moved(8),
    "negative": moved(-(10**6)),
    "outside": moved(10**15),
    "tail": lambda h, d: d.extend(b"more"),
    "gap": lambda h, d: h.pop("label/number"),
    "huge": lambda h, d: h["action"].update(shape=[10**15, 2]),
    "deep": lambda h, d: h["action"].update(shape=[1] * 3000),
    "scalar": lambda h, d: h["action"].update(shape=[]),
    "float": lambda h, d: h["action"].update(shape=[12.0, 2]),
    "true": lambda h, d: h["action"].update(shape=[12, 2, True]),
    "text": lambda h, d: h["action"].update(shape="12"),
    "dtype": lambda h, d: h["action"].update(dtype="O"),
    "entry": lambda h, d: h.update(action=[]),
    "flag": lambda h, d: h["last"].update(dtype="U8"),
    "reshaped": lambda h, d: h["action"].update(shape=[24, 1]),
    "unlike": lambda h, d: h["label/number"].update(dtype="U8", shape=[48]),
    "no first": lambda h, d: h.update(firsT=h.pop("first")),
    "no length": lambda h, d: h.update({"episode/len": h.pop("episode/length")}),
    "no meta": lambda h, d: h.pop("__metadata__"),
    "meta": lambda h, d: h.update(__metadata__=[]),
    "format": lambda h, d: h["__metadata__"].update(format="pt"),
    "newer": lambda h, d: h["__metadata__"].update(version="2"),
    "version": lambda h, d: h["__metadata__"].update(version="1e9"),
    "info": lambda h, d: h["__metadata__"].update(info="[1]"),
    "nested": lambda h, d: h["__metadata__"].update(info="[" * 100_000),
    "longer": lambda h, d: put(h, d, "episode/length", [4, 4, 5]),
    "nothing": lambda h, d: put(h, d, "episode/length", [0, 8, 4]),
    "minus": lambda h, d: put(h, d, "episode/length", [-4, 12, 4]),
    "wrapped": lambda h, d: put(h, d, "episode/length", [2**62, 2**62, 2**63 - 1]),
    "uneven": lambda h, d: put(h, d, "episode/length", [3, 5, 4]),
    "half": lambda h, d: put(h, d, "last", np.zeros(12, bool)),
    "late": lambda h, d: put(h, d, "first", np.arange(12) % 2 == 1),
    "bool": lambda h, d: put(h, d, "terminal", np.full(12, 2, np.uint8)),
}


def refused(path):
    """Says whether opening, or reading again, refuses the file by its name."""
    try:
        Episodes(path.parent).verify()
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < 600
        return True
    return False


def test_the_forger_of_these_tests_can_make_a_good_shard(shard):
    forge(shard, *parts(shard))
    assert not refused(shard) and len(Episodes(shard.parent)) == 3


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_shard_is_refused_by_name(shard, name):
    header, data = parts(shard)
    FORGED[name](header, data)
    forge(shard, header, data)
    with pytest.raises(
        ValueError, match=r"shard-000000.safetensors is no whole shard: .*; restore"
    ):
        Episodes(shard.parent)


RAW = {
    "empty": b"",
    "short": b"1234567",
    "no header": bytes(8),
    "long header": (2**63).to_bytes(8, "little") + b"{}",
    "latin": (4).to_bytes(8, "little") + b"{\xff}}",
    "null": (4).to_bytes(8, "little") + b"null",
    "list": (2).to_bytes(8, "little") + b"[]",
    "nested": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "digits": (10_000).to_bytes(8, "little") + b"9" * 10_000,
    "twice": (14).to_bytes(8, "little") + b'{"a":1, "a":2}',
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_shard_is_refused_by_name(shard, name):
    shard.write_bytes(RAW[name])
    assert refused(shard)


def test_a_shard_cut_off_anywhere_is_refused(shard):
    raw = shard.read_bytes()
    for size in range(0, len(raw), 7):
        shard.write_bytes(raw[:size])
        assert refused(shard), size


def test_a_flipped_bit_anywhere_is_found(shard):
    raw, bits = shard.read_bytes(), random.Random(0)
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1 << bits.randrange(8)
        shard.write_bytes(bad)
        assert refused(shard), at


def test_flips_in_header_and_columns_are_found_without_reading_the_steps(shard):
    raw, bits = shard.read_bytes(), random.Random(1)
    header, _ = parts(shard)
    data = len(raw) - max(entry["data_offsets"][1] for k, entry in header.items() if k[0] != "_")
    columns = [header[key]["data_offsets"] for key in header if key.startswith("episode/")]
    for at in [*range(0, data, 3), *(data + i for a, b in columns for i in range(a, b))]:
        bad = bytearray(raw)
        bad[at] ^= 1 << bits.randrange(8)
        shard.write_bytes(bad)
        with pytest.raises(ValueError):
            shards.read_shard(shard)


def test_a_refused_shard_changes_nothing_in_open_episodes(shard):
    episodes = Episodes(shard.parent)
    before = episodes.sample(np.random.default_rng(0), 8, 2)
    good = shard.read_bytes()
    for name, raw in (("shard-000001", good), ("shard-000002", good[:-1])):
        (shard.parent / f"{name}.safetensors").write_bytes(raw)
    for _ in range(2):
        with pytest.raises(ValueError, match="shard-000002"):
            episodes.refresh()
        again = episodes.sample(np.random.default_rng(0), 8, 2)
        assert len(episodes) == 3 and all(np.array_equal(before[key], again[key]) for key in before)
    (shard.parent / "shard-000002.safetensors").write_bytes(good)
    assert episodes.refresh() == 6


def test_a_mapped_byte_never_becomes_a_wrong_bool(shard, monkeypatch):
    header, data = parts(shard)
    put(header, data, "label/contact", np.arange(12, dtype=np.uint8))
    forge(shard, header, data)
    assert refused(shard)  # in memory it is seen at once
    monkeypatch.setattr(shards, "_SMALL_SHARD", 0)
    monkeypatch.setattr(shards, "_SMALL_STEP", 0)
    contact = [Episodes(shard.parent).episode(i)["label/contact"] for i in range(3)]
    assert np.concatenate(contact).view(np.uint8).tolist() == [0] + 11 * [1]


def test_data_is_aligned_for_every_dtype(shard):
    for dtype, shape, start in shards.read_shard(shard).tensors.values():
        assert start % dtype.itemsize == 0 and math.prod(shape) > 0


def test_a_folder_of_a_million_shards_takes_no_more(tmp_path):
    step = stream([1], n=1)[0]
    record(tmp_path, [step])
    (tmp_path / "shard-000000.safetensors").rename(tmp_path / "shard-999999.safetensors")
    with pytest.raises(OSError, match="another"):
        Recorder(tmp_path).add(step)
    assert len(Episodes(tmp_path)) == 1
