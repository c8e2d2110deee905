"""A user's body loads as MuJoCo would load it; every hostile one is refused by a ValueError."""

import os
import struct
import zlib
from pathlib import Path

import dm_control
import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from umwelten.robots import arm, mjcf

TETRA = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
MAIN = """<?xml version="1.0"?><!-- a comment -->
<mujoco model="mine &amp; yours">
  <compiler angle="radian" meshdir="./parts/"/>
  <include file="look/assets.xml"/>
  <default><geom rgba="0.2 0.4 0.6 1"/></default>
  <worldbody>
    <body name="base"><geom type="mesh" mesh="tetra"/><geom type="mesh" mesh="tetra" pos="0 0 1"/>
      <include file="look/link.xml"/>
    </body>
  </worldbody>
</mujoco>"""
ASSETS = """<mujoco><asset><mesh file="tetra.obj" scale="0.1 0.1 0.1"/>
  <texture name="t" type="2d" file="look/dots.png"/><material name="m" texture="t"/>
  </asset></mujoco>"""
LINK = """<mujoco><body name="link" pos="0 0 0.1"><joint name="hinge" range="-1 1"/>
  <geom size="0.05 0.1" type="capsule" material="m"/></body></mujoco>"""
BOMB = '<!DOCTYPE m [<!ENTITY a "aaaa">' + "".join(
    f'<!ENTITY {b} "{("&" + a + ";") * 9}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def png(width, height, claimed=None):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", *(claimed or (width, height)), 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x80\x40\x20" * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(rows))
        + (chunk(b"IEND", b""))
    )


def write(folder, **files):
    """Writes files by name (a dot as `__`, a slash as `_in_`) and returns the path of main.xml."""
    for name, content in files.items():
        place = folder / name.replace("_in_", "/").replace("__", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "main.xml"


def good(folder, **other):
    files = {
        "main__xml": MAIN,
        "look_in_assets__xml": ASSETS,
        "look_in_link__xml": LINK,
        "look_in_dots__png": png(4, 4),
        "parts_in_tetra__obj": TETRA,
    }
    return write(folder, **{**files, **other})


def plain(inside, worldbody=""):
    body = f"<body><geom size='0.1'/>{worldbody}</body>"
    return f"<mujoco>{inside}<worldbody>{body}</worldbody></mujoco>"


def test_a_body_with_includes_a_mesh_and_a_texture_loads_as_mujoco_loads_it(tmp_path):
    ours = mjcf.load(good(tmp_path)).compile()
    theirs = mujoco.MjSpec.from_file(str(tmp_path / "main.xml")).compile()
    assert (ours.nbody, ours.nmesh, ours.ngeom, ours.ntex, ours.njnt) == (3, 1, 3, 1, 1)
    for name in ("mesh_vert", "geom_pos", "geom_rgba", "body_mass", "jnt_range", "tex_data"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.names == theirs.names


@pytest.mark.parametrize("name", ["cheetah", "humanoid_CMU", "manipulator", "quadruped", "swimmer"])
def test_others_models_load_as_mujoco_loads_them(name):
    path = Path(dm_control.__file__).parent / "suite" / f"{name}.xml"
    ours, theirs = mjcf.load(path).compile(), mujoco.MjModel.from_xml_path(str(path))
    assert ours.names == theirs.names and ours.ntex > 0
    for field in ("body_mass", "geom_size", "qpos0", "actuator_gainprm", "dof_damping"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_its_spec_can_join_a_scene(tmp_path):
    scene = mujoco.MjSpec()
    scene.attach(mjcf.load(good(tmp_path)), prefix="mine/", frame=scene.worldbody.add_frame())
    model = scene.compile()
    assert model.body("mine/link").id > 0 and model.nmesh == 1


def test_an_include_is_looked_up_beside_main_then_beside_the_including_file(tmp_path):
    inner = "<mujoco><worldbody><geom size='{}'/></worldbody></mujoco>"
    main = "<mujoco><include file='sub/a.xml'/></mujoco>"
    path = write(
        tmp_path, main__xml=main, sub_in_a__xml="<mujoco><include file='b.xml'/></mujoco>",
        sub_in_b__xml=inner.format(1),
    )  # fmt: skip
    for size in (1, 2):
        for load in (mjcf.load, lambda p: mujoco.MjSpec.from_file(str(p))):
            assert load(path).compile().geom_size[0, 0] == size
        write(tmp_path, b__xml=inner.format(2))
    write(tmp_path, sub_in_a__xml="<mujoco><include file='../b.xml'/></mujoco>")
    assert mjcf.load(path).compile().geom_size[0, 0] == 2


@pytest.mark.parametrize("name", ["../secret.obj", "/etc/hostname", "sub/../../secret.obj", "a:b"])
@pytest.mark.parametrize(
    "xml",
    [
        "<mujoco><include file='{}'/></mujoco>",
        "<mujoco><asset><mesh file='{}'/></asset></mujoco>",
        "<mujoco><asset><hfield name='h' file='{}' size='1 1 1 1'/></asset></mujoco>",
        "<mujoco><asset><skin name='h' file='{}'/></asset></mujoco>",
        "<mujoco><asset><texture name='t' type='cube' fileright='{}'/></asset></mujoco>",
    ],
)
def test_files_outside_the_folder_are_refused(tmp_path, xml, name):
    (tmp_path / "secret.obj").write_text(TETRA)
    path = write(tmp_path / "model", main__xml=xml.format(name))
    with pytest.raises(ValueError, match=r"outside|no relative path"):
        mjcf.load(path)


@pytest.mark.parametrize("folder", ["..", "/etc", "parts/../.."])
@pytest.mark.parametrize("kind", ["meshdir", "assetdir"])
def test_a_mesh_folder_outside_is_refused(tmp_path, folder, kind):
    (tmp_path / "tetra.obj").write_text(TETRA)
    path = good(
        tmp_path / "model", main__xml=MAIN.replace('meshdir="./parts/"', f'{kind}="{folder}"')
    )
    with pytest.raises(ValueError, match=r"outside|no relative path|not in the model's folder"):
        mjcf.load(path)


def test_links_that_lead_outside_or_in_a_circle_are_refused(tmp_path):
    (tmp_path / "tetra.obj").write_text(TETRA)
    path = good(tmp_path / "model")
    mesh = path.parent / "parts" / "tetra.obj"
    for target in (tmp_path / "tetra.obj", mesh):
        mesh.unlink()
        mesh.symlink_to(target)
        with pytest.raises(ValueError, match=r"outside|cannot be found|no regular file"):
            mjcf.load(path)
    mesh.unlink()
    os.mkfifo(mesh)
    with pytest.raises(ValueError, match="no regular file"):
        mjcf.load(path)


def test_a_circle_of_includes_is_refused(tmp_path):
    path = good(tmp_path, look_in_link__xml="<mujoco><include file='main.xml'/></mujoco>")
    with pytest.raises(ValueError, match="included twice, or in a circle"):
        mjcf.load(path)


@pytest.mark.parametrize(
    "xml, told",
    [
        (BOMB + "]><mujoco model='&i;'/>", "DTD"),
        ("<!DOCTYPE m SYSTEM 'file:///etc/passwd'><mujoco/>", "DTD"),
        ("<!DOCTYPE m [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><mujoco model='&x;'/>", "DTD"),
        ("<robot name='r'><link name='l'/></robot>", "the root is <robot>"),
        ("not xml at all", "no XML"),
        ("", "no XML"),
        ("<mujoco>", "no XML"),
        ("<mujoco/><mujoco/>", "no XML"),
        ("<mujoco a='1' a='2'/>", "no XML"),
        (b"<mujoco model='\xff'/>", "no XML"),
        ("<mujoco><unheard/></mujoco>", "MuJoCo says"),
        (plain("<extension><plugin plugin='mujoco.sdf.torus'/></extension>"), "extension"),
        (plain("", "<plugin plugin='x'/>"), "is refused"),
        (plain("<asset><model name='m' file='main.xml'/></asset>"), "MjSpec.attach"),
        (plain("", "<flexcomp name='f' count='900 900 900' dim='3'/>"), "is refused"),
        (plain("", "<composite type='cable' count='900 900 900'/>"), "max_bodies"),
        (plain("", "<composite type='cable' count='many'/>"), "plain numbers"),
        (plain("", "<replicate count='1000000000'><body/></replicate>"), "max_bodies"),
        (plain("", "<replicate count='999'><replicate count='999'><site/></replicate></replicate>"),
         "elements"),
        (plain("", "<body><geom size='0.1'/></body>" * 600), "601 bodies"),
        (plain("", "<site/>" * 100_001), "elements"),
        (plain("", "<body>" * 200 + "</body>" * 200), "nested deeper"),
        (plain("<size memory='900G'/>"), "memory"),
        (plain("<size memory='1e30'/>"), "memory"),
        (plain("<size nconmax='2000000000'/>"), "at most"),
        (plain("<size nuser_geom='1000000'/>"), "at most"),
        (plain("<option iterations='2000000000'/>"), "at most"),
        (plain("<option timestep='nan'/>"), "finite"),
        (plain("<asset><hfield nrow='90000' ncol='9' size='1 1 1 1'/></asset>"), "at most"),
        (plain("<asset><texture builtin='flat' width='99999' height='9'/></asset>"), "at most"),
        (plain("<custom><numeric name='n' size='1000000000'/></custom>"), "at most"),
        (plain("", "<camera resolution='1000000 1000000'/>"), "at most"),
        (plain("", "<geom size='1e9'/>"), "1000 m"),
        (plain("", "<geom size='inf'/>"), "finite"),
        (plain("", "<geom size='0x1p60'/>"), "plain numbers"),
        (plain("", "<geom size='0.1' pos='0 0 -1e5'/>"), "1000 m"),
        (plain("<default><geom size='5000'/></default>"), "1000 m"),
        (plain("<asset><mesh name='m' vertex='0 0 0 9e9 0 0 0 1 0 0 0 1'/></asset>"), "1000 m"),
    ],
)  # fmt: skip
def test_what_no_body_needs_is_refused(tmp_path, xml, told):
    with pytest.raises(ValueError, match=told):
        mjcf.load(write(tmp_path, main__xml=xml))


@pytest.mark.filterwarnings("ignore:Inertia matrix")
def test_what_a_file_holds_is_limited_too(tmp_path):
    huge = TETRA.replace("v 1 0 0", "v 1e9 0 0")
    with pytest.raises(ValueError, match="a geom of"):
        mjcf.load(good(tmp_path / "a", parts_in_tetra__obj=huge))
    with pytest.raises(ValueError, match="100000 x 100000 pixels"):
        mjcf.load(good(tmp_path / "b", look_in_dots__png=png(4, 4, (100000, 100000))))
    with pytest.raises(ValueError, match="MuJoCo says"):
        mjcf.load(good(tmp_path / "c", parts_in_tetra__obj=b"\0garbage"))
    path = good(tmp_path / "d")
    total = sum(p.stat().st_size for p in path.parent.rglob("*.*"))
    mjcf.load(path, max_bytes=total)
    with pytest.raises(ValueError, match="max_bytes"):
        mjcf.load(path, max_bytes=total - 1)
    with pytest.raises(ValueError, match=r"2 bodies.*at most 1"):
        mjcf.load(path, max_bodies=1)
    with pytest.raises(ValueError, match="is no file"):
        mjcf.load(tmp_path)


TAGS = ["mujoco", "worldbody", "body", "geom", "joint", "size", "replicate", "composite", "include"]
TAGS += ["asset", "mesh", "texture", "default", "option", "compiler", "site", "hfield", "plugin"]
KEYS = ["name", "size", "pos", "type", "file", "count", "memory", "meshdir", "range", "mesh"]
VALUES = ["", "1", "-1", "0.1 0.2", "1e308", "nan", "a", "tetra.obj", "../x", "\x7f", "box", "mesh"]
VALUES += ["main.xml", "99999999999999999999", "&lt;", "true", "1 1 1 1", "hinge", "\u00e9"]
TEXTS = st.recursive(
    st.just(""),
    lambda inner: st.builds(
        lambda tag, told, parts: f"<{tag}{''.join(told)}>{''.join(parts)}</{tag}>",
        st.sampled_from(TAGS),
        st.lists(
            st.builds(' {}="{}"'.format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
            max_size=3,
        ),
        st.lists(inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.one_of(TEXTS, TEXTS.map("<mujoco>{}</mujoco>".format), st.binary(max_size=60)))
@example("<mujoco><worldbody><geom size='0.1'/></worldbody></mujoco>")
def test_nothing_but_a_value_error_comes_out(tmp_path, content):
    write(tmp_path, tetra__obj=TETRA, main__xml=content)
    try:
        mjcf.load(tmp_path / "main.xml").compile()
    except ValueError:
        pass


def test_check_arm_lists_all_that_is_missing():
    mjcf.check_arm(arm.spec(), arm.JOINTS)
    spec = arm.spec()
    spec.delete(spec.site("tcp"))
    spec.actuator("gripper").name = "hand"
    with pytest.raises(ValueError, match=r"'neck', site 'tcp', actuator 'neck', actuator 'gr"):
        mjcf.check_arm(spec, [*arm.JOINTS[:5], "neck"])
    with pytest.raises(ValueError, match="its joints in front: they are waist, shoulder"):
        mjcf.check_arm(arm.spec(), arm.JOINTS[::-1])
