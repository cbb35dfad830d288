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

    Raises:
        InputError: ffmpeg is missing, or the file is no video that it reads.
    """
    words = (
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=avg_frame_rate",
        "-of",
        "json",
        str(file),
    )
    done = subprocess.run([_find("ffprobe"), *words], capture_output=True, check=False)
    try:
        (stream,) = json.loads(done.stdout)["streams"]
        rate = Fraction(stream["avg_frame_rate"])
    except (ValueError, KeyError, ZeroDivisionError) as error:
        reason = _shorten(done.stderr) or "it has no pictures"
        raise InputError(f"{file} cannot be read as a video ({reason}); get it anew, or convert it") from error
    return rate if rate > 0 else Fraction(25)


def read_frames(file: Path) -> Iterator[Frame]:
    """Read the frames of a video one after the other, upright and in RGB.

    Raises:
        InputError: ffmpeg is missing, or it cannot read the file.
    """
    # In PPM each frame brings its size, which the rotation that phones write has changed.
    words = ("-i", str(file), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-")
    command = [_find("ffmpeg"), *LOUD, *words]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        assert process.stdout
        try:
            while (frame := _read_frame(process.stdout)) is not None:
                yield frame
            _close(process, messages, f"{file} cannot be read to its end")
        finally:
            process.kill()


def _read_frame(stream: IO[bytes]) -> Frame | None:
    """Read a picture in PPM's binary form: the lines P6, width and height, 255, then the samples."""
    if stream.readline(LINE) != b"P6\n":
        return None
    width, height = map(int, stream.readline(LINE).split())
    stream.readline(LINE)
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
        raise InputError(f"{problem} ({_shorten(messages.read())}); make room, or convert the video with ffmpeg")


def _shorten(output: bytes) -> str:
    """Return the last line of what a program printed."""
    return output.decode(errors="replace").strip().rpartition("\n")[2]


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise InputError(f"videos need the program {program}: install ffmpeg, or give images")
    return found
