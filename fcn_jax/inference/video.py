"""Segment videos frame by frame. ffmpeg, a program, reads and writes them."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import split_maps
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.segment import Segmented, make_unlabelled
from fcn_jax.inference.visualize import overlay, save_palette_png
from fcn_jax.runtime.files import replace_atomically

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
LOUD = ("-hide_banner", "-loglevel", "error", "-nostdin")
LAST = 4000  # bytes of ffmpeg's messages that are read for an error
FASTEST = Fraction(1000)  # frames in a second
LINE = 100  # bytes; a line of the header of a frame has fewer

Frame = UInt8[np.ndarray, "height width 3"]


def is_video(file: Path) -> bool:
    """Return whether the name of a file is that of a video."""
    return file.suffix.lower() in SUFFIXES


def predict_video(
    segment: Callable[[Iterable[Example]], Iterable[Segmented]], file: Path, out: Path, outputs: Outputs
) -> Iterator[int]:
    """Write the overlay of a video, and a folder with the class map of each frame.

    These are `<stem>_overlay.mp4`, with the rate and the sound of the video, and `<stem>/000001.png`, palette PNGs. A
    width or height that is odd gets a black pixel more in the overlay, because H.264 stores colours in pairs of pixels.
    Only a few frames are in memory at a time. Overlay and folder are complete or not there. The overlay shows the first
    task; the class maps of further ones are in `<stem>_TASK/`.

    Args:
        segment: computes the class maps of examples, which have one size.
        file: the video.
        out: folder for the results, which exists.
        outputs: palette and opacity.

    Yields:
        The number of each frame that is written, from 1 on.

    Raises:
        InputError: ffmpeg is missing, or it cannot read the video or write the overlay; or files that are no results of
            a video would be replaced.
    """
    rate = read_rate(file)
    tasks = outputs.split_tasks()
    target, folders = out / f"{file.stem}_overlay.mp4", [out / f"{file.stem}{suffix}" for suffix, _ in tasks]
    _require_own(target, folders)
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=out) as temporary:
        begun = [Path(temporary, folder.name) for folder in folders]
        for folder in begun:
            folder.mkdir()
        yield from _write(segment, file, target, begun, outputs, rate)
        for folder, complete in zip(folders, begun, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            complete.replace(folder)


def _require_own(target: Path, folders: Sequence[Path]) -> None:
    """Raise InputError if the results of a video would replace others: its own are an overlay and folders together."""
    there = [path for path in (target, *folders) if path.is_file() or (path.is_dir() and any(path.iterdir()))]
    if there and len(there) <= len(folders):
        raise InputError(
            f"{there[0]} is there already, and is no whole result of fcn-jax predict; give another --out, or move it "
            "away"
        )


def _write(
    segment: Callable[[Iterable[Example]], Iterable[Segmented]],
    file: Path,
    target: Path,
    folders: Sequence[Path],
    outputs: Outputs,
    rate: Fraction,
) -> Iterator[int]:
    """Write the overlay and the class maps of each task into folders, and yield the number of each frame."""
    tasks = outputs.split_tasks()
    examples = (make_unlabelled(f"{number:06}", frame) for number, frame in enumerate(read_frames(file), 1))
    with replace_atomically(target, sync=False) as temporary, contextlib.ExitStack() as stack:
        messages = stack.enter_context(tempfile.TemporaryFile())
        writer = None
        for number, result in enumerate(segment(examples), 1):
            example, class_map = result.example, result.class_map
            if example.name != f"{number:06}":
                raise InputError(f"{file} has frames of several sizes; convert it to one size with ffmpeg")
            maps = split_maps(class_map, len(tasks))
            for folder, (_, part), one in zip(folders, tasks, maps, strict=True):
                save_palette_png(one, part.palette, folder / f"{example.name}.png")
            picture = overlay(example.picture, maps[0], outputs.palette, outputs.alpha)
            if writer is None:
                writer = stack.enter_context(_open_writer(temporary, picture.shape[:2], rate, file, messages))
                stack.callback(writer.kill)
            _pipe(writer, picture.tobytes(), messages, file)
            yield number
        if writer is None:
            raise InputError(f"{file} has no frame; give a video that plays")
        _close(writer, messages, f"the overlay of {file} cannot be written")


def read_rate(file: Path) -> Fraction:
    """Read the average number of frames in a second.

    Files that browsers record do not tell it; their frames are counted then. It is 25 if the duration is not known,
    or cannot be true.

    Raises:
        InputError: ffmpeg is missing, or the file is no video that it reads.
    """
    stream, _ = _probe(file, "stream=avg_frame_rate")
    if rate := _parse_ratio(stream.get("avg_frame_rate")):
        return rate
    stream, whole = _probe(file, "stream=nb_read_packets:format=duration", "-count_packets")
    frames, seconds = _parse_ratio(stream.get("nb_read_packets")), _parse_ratio(whole.get("duration"))
    rate = frames / seconds if frames and seconds else FASTEST
    return max(rate.limit_denominator(1001), Fraction(1, 1001)) if rate < FASTEST else Fraction(25)


def _probe(file: Path, entries: str, *words: str) -> tuple[dict[str, str], dict[str, str]]:
    """Ask ffprobe for entries of the first video stream, and of the whole file.

    Raises:
        InputError: ffmpeg is missing, or the file is no video that it reads.
    """
    command = [_find("ffprobe"), "-v", "error", *words, "-select_streams", "v:0", "-show_entries", entries]
    done = subprocess.run([*command, "-of", "json", str(file)], capture_output=True, check=False)
    try:
        found = json.loads(done.stdout)
        (stream,) = found["streams"]
    except (ValueError, KeyError) as error:
        reason = _shorten(done.stderr) or "it has no pictures"
        raise InputError(f"{file} cannot be read as a video ({reason}); get it anew, or convert it") from error
    return stream, found.get("format", {})


def _parse_ratio(text: str | None) -> Fraction | None:
    """Return the positive number that ffprobe writes as 25, 30000/1001 or 0.7; None: it is not known, as 0/0."""
    try:
        number = Fraction(text or 0)
    except (ValueError, ZeroDivisionError):
        return None
    return number if number > 0 else None


def read_frames(file: Path) -> Iterator[Frame]:
    """Read the frames of a video one after the other, upright and in RGB.

    Raises:
        InputError: ffmpeg is missing, or it cannot read the file.
    """
    # In PPM each frame brings its size, which the rotation that phones write has changed.
    pictures = ("-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-")
    command = [_find("ffmpeg"), *LOUD, "-i", str(file), "-map", "0:v:0", "-fps_mode", "passthrough", *pictures]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        assert process.stdout
        try:
            while (frame := _read_frame(process.stdout, file)) is not None:
                yield frame
            _close(process, messages, f"{file} cannot be read to its end")
        finally:
            process.kill()


def _read_frame(stream: IO[bytes], file: Path) -> Frame | None:
    """Read a picture in PPM's binary form: the lines P6, width and height, 255, then the samples; None: no more."""
    kind = stream.readline(LINE)
    if not kind:
        return None
    size, largest = stream.readline(LINE), stream.readline(LINE)
    if (kind, largest) != (b"P6\n", b"255\n"):
        raise InputError(f"ffmpeg gives frames of {file} as {kind + largest!r}, not as PPM; convert the video with it")
    width, height = map(int, size.split())
    samples = stream.read(height * width * 3)
    if len(samples) < height * width * 3:
        return None
    return np.frombuffer(samples, np.uint8).reshape(height, width, 3)


def _open_writer(
    target: Path, shape: tuple[int, int], rate: Fraction, source: Path, messages: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """Start ffmpeg on frames of a size; it takes the sound from the source, however long that is."""
    height, width = shape
    frames = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-")
    sound = ("-i", str(source), "-map", "0:v", "-map", "1:a?", "-c:a", "aac")
    pictures = ("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p")
    words = [_find("ffmpeg"), *LOUD[:3], *frames, *sound, *pictures, "-f", "mp4", "-y", str(target)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stderr=messages)


def _pipe(process: "subprocess.Popen[bytes]", data: bytes, messages: IO[bytes], file: Path) -> None:
    assert process.stdin
    try:
        process.stdin.write(data)
    except BrokenPipeError as error:
        problem = f"the overlay of {file} cannot be written"
        _close(process, messages, problem)
        raise InputError(f"{problem}: ffmpeg has ended before the last frame; convert the video with ffmpeg") from error


def _close(process: "subprocess.Popen[Any]", messages: IO[bytes], problem: str) -> None:
    """Wait for ffmpeg, and raise an error with its reason if it has failed.

    Its messages are in a file: of a damaged video there may be many, and ffmpeg would wait for a reader of a pipe.
    """
    with contextlib.suppress(BrokenPipeError):  # it has ended, and its status says why
        process.communicate()
    if process.wait():
        messages.seek(max(0, messages.seek(0, os.SEEK_END) - LAST))
        said = messages.read()
        remedy = "install ffmpeg 5.1 or newer" if b"fps_mode" in said else "make room, or convert the video with ffmpeg"
        raise InputError(f"{problem} ({_shorten(said)}); {remedy}")


def _shorten(output: bytes) -> str:
    """Return the last line of what a program printed."""
    return output.decode(errors="replace").strip().rpartition("\n")[2]


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise InputError(f"videos need the program {program}: install ffmpeg, or give images")
    return found
