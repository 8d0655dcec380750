"""Worker process that decodes pictures: `python -P -m tbps.server.uploads.decoder MEMORY_BYTES`, started by `decoding`.

Request on standard input: a line of JSON {"length", "bytes", "pixels", "cpu_seconds", "fit"}, then `length` bytes of a file.
Answer on standard output: a line of JSON, either {"size": [width, height]} followed by width * height * 3 bytes of RGB, or
{"refused": reason}. fit: null, or the [height, width] of a model's input, to which the picture is resized. The process first writes
{"ready": true}, and ends when its standard input is closed. Its memory, and its processor time per picture, are limited with
`setrlimit`.
"""

import contextlib
import json
import re
import resource
import sys
from typing import Any, BinaryIO

from PIL import Image

from tbps.errors import ImageError
from tbps.preprocess.image import ImageSpec, to_array
from tbps.server.uploads.pictures import PictureCaps, open_picture


def main(memory_bytes: int) -> None:
    """Answer requests until standard input is closed."""
    _bound(resource.RLIMIT_AS, memory_bytes)
    _bound(resource.RLIMIT_CORE, 0)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _answer(answers, {"ready": True})
    while line := requests.readline():
        asked = json.loads(line)
        content = requests.read(asked["length"])
        if len(content) < asked["length"]:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        _bound(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + asked["cpu_seconds"]) + 1)
        try:
            image = open_picture(content, PictureCaps(asked["bytes"], asked["pixels"]))
            if asked["fit"] is not None:
                height, width = asked["fit"]
                image = Image.fromarray(to_array(image, ImageSpec(height=height, width=width)))
        except (ImageError, MemoryError) as error:
            _answer(answers, {"refused": _why(error)})
            continue
        _answer(answers, {"size": image.size}, image.tobytes())


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return "needs more memory to decode than the service allows"
    return re.sub(r"^<[^>]*>: ", "", str(error))  # `preprocess.image` names pictures without a path <N bytes>


def _answer(answers: BinaryIO, told: dict[str, Any], pixels: bytes = b"") -> None:
    answers.write(json.dumps(told).encode() + b"\n")
    answers.write(pixels)
    answers.flush()


def _bound(what: int, most: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system allows it
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main(int(sys.argv[1]))
