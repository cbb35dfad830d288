"""Videos, read and written by a real ffmpeg."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_jax.cli import predict
from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import palette
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.segment import Segmented
from fcn_jax.inference.video import is_video, predict_video, read_frames, read_rate
from fcn_jax.inference.visualize import overlay

OUTPUTS = Outputs(palette(3), ("dark", "middle", "bright"))

pytestmark = pytest.mark.programs
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def classify(image: np.ndarray) -> np.ndarray:
    return (image.mean(axis=-1) // 86).astype(np.uint8)


def segment(examples: Iterable[Example]) -> Iterator[Segmented]:
    for example in examples:
        yield Segmented(example, classify(example.image), 0.0, 0.0)


def make_video(file, words: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *words.split(), str(file)], check=True)


def stand_in(folder, monkeypatch, name: str, script: str) -> None:
    """Put a shell script in the place of a program."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Seven frames of 75x50 with sound."""
    file = tmp_path_factory.mktemp("videos") / "clip.mp4"
    video = "-f lavfi -i testsrc=size=75x50:rate=10:duration=0.7 -f lavfi -i sine=frequency=440:duration=0.7"
    make_video(file, f"{video} -pix_fmt yuv444p")
    return file


@needs_ffmpeg
def test_every_frame_gets_its_class_map_and_its_overlay(clip, tmp_path):
    assert is_video(clip)
    assert read_rate(clip) == Fraction(10)
    frames = list(read_frames(clip))
    assert [frame.shape for frame in frames] == [(50, 75, 3)] * 7
    assert list(predict_video(segment, clip, tmp_path, OUTPUTS)) == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip", "clip_overlay.mp4"]
    assert sorted(file.name for file in (tmp_path / "clip").iterdir()) == [f"{n:06}.png" for n in range(1, 8)]
    written = list(read_frames(tmp_path / "clip_overlay.mp4"))
    assert read_rate(tmp_path / "clip_overlay.mp4") == Fraction(10)
    for number, (frame, shown) in enumerate(zip(frames, written, strict=True), 1):
        with Image.open(tmp_path / "clip" / f"{number:06}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), classify(frame))
        assert shown.shape == (50, 76, 3)  # H.264 has even sizes
        expected = overlay(frame, classify(frame), OUTPUTS.palette)
        assert np.abs(shown[:, :75].astype(float) - expected).mean() < 16  # H.264 loses some
        assert np.abs(shown[:, :75].astype(float) - frame).mean() > 30
    words = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0"]
    streams = subprocess.run([*words, tmp_path / "clip_overlay.mp4"], capture_output=True, text=True, check=True).stdout
    assert streams.split() == ["video", "audio"]


@needs_ffmpeg
def test_a_video_leaves_no_frames_of_the_one_before_and_replaces_no_other_files(clip, tmp_path):
    list(predict_video(segment, clip, tmp_path, OUTPUTS))
    short = tmp_path / "short" / "clip.mp4"
    short.parent.mkdir()
    make_video(short, f"-i {clip} -frames:v 3")
    list(predict_video(segment, short, tmp_path, OUTPUTS))
    assert sorted(file.name for file in (tmp_path / "clip").iterdir()) == [f"{n:06}.png" for n in range(1, 4)]
    out = tmp_path / "frames"
    (out / "clip").mkdir(parents=True)
    (out / "clip" / "000001.png").write_text("a photograph")
    with pytest.raises(InputError, match=r"frames/clip is there already, and is no whole result of fcn-jax predict"):
        list(predict_video(segment, clip, out, OUTPUTS))
    assert [file.read_text() for file in out.rglob("*.png")] == ["a photograph"]
    assert [file.name for file in out.iterdir()] == ["clip"]


@needs_ffmpeg
def test_phones_store_frames_that_lie_on_their_side(clip, tmp_path):
    turned = tmp_path / "turned.mov"
    try:
        make_video(turned, f"-display_rotation 90 -i {clip} -c copy")
    except subprocess.CalledProcessError:  # before version 6
        make_video(turned, f"-i {clip} -c copy -metadata:s:v:0 rotate=90")
    first, *_ = read_frames(turned)
    upright, *_ = read_frames(clip)
    np.testing.assert_array_equal(first, np.rot90(upright))


@needs_ffmpeg
def test_what_cannot_be_read_is_named_and_leaves_no_overlay(clip, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    sound = tmp_path / "sound.mp4"
    make_video(sound, "-f lavfi -i sine=frequency=440:duration=0.2")
    for file in (text, sound):
        with pytest.raises(InputError, match=rf"{file.name} cannot be read as a video \(.+\); get it anew"):
            list(predict_video(segment, file, tmp_path, OUTPUTS))
    assert list(tmp_path.glob("*_overlay.mp4*")) == []

    def fail(examples):
        yield from segment(examples)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(predict_video(fail, clip, tmp_path, OUTPUTS))
    assert list(tmp_path.glob("*_overlay.mp4*")) == []


def test_without_ffmpeg_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="videos need the program ffprobe: install ffmpeg, or give images"):
        read_rate(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="videos need the program ffmpeg"):
        list(read_frames(tmp_path / "clip.mp4"))


def test_some_outputs_are_for_images_alone(tmp_path):
    (tmp_path / "clip.mp4").touch()
    for flag in ("probabilities", "polygons", "counts", "source-values", "legend"):
        with pytest.raises(InputError, match=rf"clip.mp4 is a video, and --{flag} is for images; leave one of them"):
            predict.run(["nowhere", str(tmp_path / "clip.mp4"), f"--{flag}"])


@needs_ffmpeg
def test_colours_of_ten_bits_become_eight(tmp_path):
    words = "-f lavfi -i testsrc=size=64x48:rate=10:duration=0.5"
    make_video(tmp_path / "ten.mkv", f"{words} -pix_fmt yuv444p10le -c:v ffv1")
    make_video(tmp_path / "eight.mkv", f"{words} -pix_fmt yuv444p -c:v ffv1")
    ten, eight = list(read_frames(tmp_path / "ten.mkv")), list(read_frames(tmp_path / "eight.mkv"))
    assert len(ten) == len(eight) == 5
    for deep, plain in zip(ten, eight, strict=True):
        assert np.abs(deep.astype(int) - plain).max() <= 3  # both are rounded from YUV


@needs_ffmpeg
def test_a_video_that_does_not_tell_its_rate(tmp_path):
    """Its clock has milliseconds and its frames come irregularly, as browsers record them."""
    file = tmp_path / "recorded.webm"
    frames = "-f lavfi -i testsrc=size=64x48:rate=1000:duration=0.02 -vf setpts=(50*N+mod(N*N\\,37))/TB/1000"
    make_video(file, f"{frames} -enc_time_base 1/1000 -fps_mode vfr -c:v libvpx")
    words = ["ffprobe", "-v", "error", "-show_entries", "stream=avg_frame_rate", "-of", "csv=p=0", str(file)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "0/0"
    (tmp_path / "out").mkdir()
    assert read_rate(file) == pytest.approx(20, rel=0.1)
    assert len(list(predict_video(segment, file, tmp_path / "out", OUTPUTS))) == 20
    make_video(tmp_path / "one.mpg", "-f lavfi -i testsrc=size=64x48:rate=25:duration=0.04")
    assert read_rate(tmp_path / "one.mpg") == pytest.approx(25, rel=0.1)


def test_the_rate_of_one_picture_in_an_hour_is_not_zero(tmp_path, monkeypatch):
    """As ffprobe tells it of a recording of sound with a cover."""
    answer = '{"streams": [{"avg_frame_rate": "0/0", "nb_read_packets": "1"}], "format": {"duration": "3600.1"}}'
    stand_in(tmp_path, monkeypatch, "ffprobe", f"echo '{answer}'\n")
    assert read_rate(Path("song.mp4")) == Fraction(1, 1001)


def test_frames_that_are_no_ppm_are_an_error(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "ffmpeg", "printf 'P6\\n2 1\\n65535\\n'; head -c 12 /dev/zero\n")
    with pytest.raises(InputError, match=r"gives frames of clip.mp4 as b'P6.n65535.n', not as PPM"):
        list(read_frames(Path("clip.mp4")))


def test_an_ffmpeg_that_is_too_old_is_named(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "ffmpeg", "echo \"Unrecognized option 'fps_mode'.\" >&2; exit 1\n")
    with pytest.raises(InputError, match=r"clip.mp4 cannot be read .*fps_mode.*; install ffmpeg 5.1 or newer"):
        list(read_frames(Path("clip.mp4")))


@needs_ffmpeg
def test_frames_of_several_sizes_and_a_target_that_cannot_be_written(clip, tmp_path):
    def swap(examples):
        first, second, *_ = examples
        yield from segment([second, first])

    with pytest.raises(InputError, match=r"clip.mp4 has frames of several sizes; convert it to one size"):
        list(predict_video(swap, clip, tmp_path, OUTPUTS))
    with pytest.raises(InputError, match=r"clip.mp4 has no frame; give a video that plays"):
        list(predict_video(lambda examples: [], clip, tmp_path, OUTPUTS))


@needs_ffmpeg
def test_the_sound_may_be_shorter_than_the_pictures(tmp_path):
    file = tmp_path / "long.mp4"
    make_video(
        file,
        "-f lavfi -i testsrc=size=320x240:rate=10:duration=8 -f lavfi -i sine=duration=1 -pix_fmt yuv420p",
    )
    (tmp_path / "out").mkdir()
    assert len(list(predict_video(segment, file, tmp_path / "out", OUTPUTS))) == 80
    assert len(list(read_frames(tmp_path / "out" / "long_overlay.mp4"))) == 80


@needs_ffmpeg
@pytest.mark.slow
def test_a_video_with_many_damaged_places_ends(tmp_path):
    """ffmpeg has more to say of it than a pipe holds."""
    file = tmp_path / "damaged.mp4"
    make_video(file, "-f lavfi -i testsrc=size=320x240:rate=25:duration=90 -pix_fmt yuv420p -g 5")
    content = bytearray(file.read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") if b"moov" in content else len(content)
    places = np.random.default_rng(0).integers(begin, end, (end - begin) // 300)
    for place in places:
        content[place] ^= 0xFF
    file.write_bytes(content)
    said = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(file), "-f", "null", "-"], capture_output=True, check=False
    ).stderr
    assert len(said) > 65_536, len(said)
    try:
        frames = sum(1 for _ in read_frames(file))
    except InputError:
        return
    assert frames > 100
