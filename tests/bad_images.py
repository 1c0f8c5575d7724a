"""A corpus of wrong and of strange image files, made on the spot, and a jail in which each is encoded."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, features

FORMATS = ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA", "JPEG2000"] + (
    ["AVIF"] if features.check("avif") else []
)
BOMB = "decompression bomb"
DAMAGED = "damaged or truncated|not an image|0 bytes"


@dataclass
class Case:
    """A file, and the image it holds, or what the error about it must say; None leaves both open."""

    name: str
    path: str
    wanted: str | np.ndarray | None


def encode_as(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width: int, height: int, rows: bytes, *extra: tuple[bytes, bytes], depth: int = 8) -> bytes:
    """A gray PNG of any claim; `rows` are its compressed scan lines."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def zeros(n: int) -> bytes:
    """That many zeros, compressed without ever being held."""
    press, block = zlib.compressobj(9), bytes(2**20)
    parts = [press.compress(block) for _ in range(n // len(block))]
    return b"".join([*parts, press.compress(bytes(n % len(block))), press.flush()])


def bombs() -> Iterator[tuple[str, bytes, str | None]]:
    tiny = zeros(2)
    yield "claims 60000 x 60000.png", make_png(60000, 60000, tiny), BOMB
    yield "claims 16000 x 16000.png", make_png(16000, 16000, tiny), BOMB
    yield "really 14000 x 14000.png", make_png(14000, 14000, zeros(14000 * 14001)), BOMB
    yield "one pixel of 200 MB.png", make_png(1, 1, zeros(2 * 10**8)), None
    yield "profile of 200 MB.png", make_png(1, 1, tiny, (b"iCCP", b"x\0\0" + zeros(2 * 10**8))), None
    yield "text of 200 MB.png", make_png(1, 1, tiny, (b"zTXt", b"x\0\0" + zeros(2 * 10**8))), None
    many = [(b"zTXt", b"x%d\0\0" % i + zeros(10**6)) for i in range(100)]
    yield "a hundred texts of 1 MB.png", make_png(1, 1, tiny, *many), None
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00\x3b"
    yield "claims 65535 x 65535.gif", b"GIF89a" + screen + frame, BOMB
    small = struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    yield "frame larger than its screen.gif", b"GIF89a" + small + frame, BOMB
    bits = (16383 | 16383 << 14) & 0xFFFFFFFF
    vp8l = b"VP8L" + struct.pack("<I", 12) + b"\x2f" + struct.pack("<I", bits) + bytes(7)
    yield "claims 16384 x 16384.webp", b"RIFF" + struct.pack("<I", 4 + len(vp8l)) + b"WEBP" + vp8l, f"{BOMB}|{DAMAGED}"
    yield "claims 40000 x 40000.bmp", bmp(40000, 40000), BOMB
    yield "run lengths of 40000 x 40000.bmp", bmp(40000, 40000, compression=1), BOMB
    yield "claims 60000 x 60000.ppm", b"P6 60000 60000 255\n" + bytes(30), BOMB
    yield "claims 2147483647 x 2.tif", tiff(2**31 - 1, 2), BOMB
    yield "claims 60000 x 60000.tif", tiff(60000, 60000), BOMB
    inner = make_png(60000, 60000, tiny)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inner), 22) + inner
    yield "icon with a bomb in it.ico", icon, f"{BOMB}|{DAMAGED}"
    psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30000, 30000, 8, 3) + bytes(12) + struct.pack(">H", 0) + bytes(30)
    yield "claims 30000 x 30000.psd", psd, BOMB


def bmp(width: int, height: int, compression: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 64, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + 64, 0, 0, 14 + 40 + 1024) + info + bytes(1024 + 64)


def tiff(width: int, height: int, *more: tuple[int, int, int, int], next_directory: int = 0) -> bytes:
    """A TIFF of one directory; each entry is tag, type, count, value."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, min(width * height, 2**32 - 1)), *more]
    entries.sort()
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", next_directory) + bytes(64)


def truncated(pixels: np.ndarray) -> Iterator[tuple[str, bytes, str | np.ndarray | None]]:
    for kind in FORMATS:
        content = encode_as(pixels, kind)
        whole = decode(content)
        yield f"whole.{kind}", content, whole
        for cut in (0, 1, 3, 8, 13, 30, len(content) // 4, len(content) // 2, 3 * len(content) // 4):
            yield f"cut at {cut}.{kind}", content[:cut], DAMAGED if cut < 2 else None
        yield f"less its last byte.{kind}", content[:-1], None


def strange(pixels: np.ndarray) -> Iterator[tuple[str, bytes, str | np.ndarray | None]]:
    """Files that hold a image all the same, and files that hold none."""
    for height, width in ((1, 1), (1, 10000), (10000, 1), (2, 40000), (1, 2)):
        shape = np.resize(pixels, (height, width, 3))
        yield f"{height} x {width}.png", encode_as(shape, "PNG"), shape
    content = encode_as(pixels, "PNG")
    jpeg = encode_as(pixels, "JPEG")
    yield "a png.jpg", content, pixels
    yield "a jpeg.png", jpeg, decode(jpeg)
    yield "a png.txt", content, pixels
    yield "no ending", content, pixels
    yield "a text.jpg", b"this is no image", DAMAGED
    yield "a page.jpg", b"<html><body>404 Not Found</body></html>", DAMAGED
    yield "an archive.png", b"PK\x03\x04" + bytes(100), DAMAGED
    yield "nothing.png", b"", "0 bytes"
    yield "zeros.png", bytes(10**6), DAMAGED
    yield "noise.png", np.random.default_rng(0).bytes(5000), DAMAGED
    yield (
        "a program.eps",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        "EPS is run by",
    )
    yield "trailing garbage.png", content + b"garbage" * 1000, pixels
    cmyk = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(cmyk, "TIFF")
    yield "four inks.tif", cmyk.getvalue(), decode(cmyk.getvalue())
    gray = pixels[..., 0]
    sixteen = io.BytesIO()
    Image.fromarray(gray.astype(np.uint16) * 257).save(sixteen, "PNG")
    yield "16 bits.png", sixteen.getvalue(), np.repeat(gray[..., None], 3, 2)
    floats = io.BytesIO()
    Image.fromarray(gray.astype(np.float32)).save(floats, "TIFF")
    yield "floats.tif", floats.getvalue(), "range is unknown"
    animation = io.BytesIO()
    frames = [Image.fromarray(np.roll(pixels, i, axis=1)).quantize(64) for i in range(5)]
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    yield "animated.gif", animation.getvalue(), decode(animation.getvalue())
    for kind in ("PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(pixels).save(
            buffer, kind, save_all=True, append_images=[Image.fromarray(255 - pixels)], **options
        )
        yield f"animated.{kind}", buffer.getvalue(), pixels
    garbage = np.random.default_rng(1).bytes(300)
    for name, exif in (("noise", garbage), ("empty", b""), ("header alone", b"MM\0*"), ("loop", loop_of_directories())):
        yield f"exif of {name}.jpg", encode_as(pixels, "JPEG", exif=b"Exif\0\0" + exif), decode(jpeg)
        yield f"exif of {name}.png", make_with_chunk(content, b"eXIf", exif), pixels
        yield f"profile of {name}.jpg", encode_as(pixels, "JPEG", icc_profile=exif), decode(jpeg)
        yield f"profile of {name}.png", make_with_chunk(content, b"iCCP", b"x\0\0" + zlib.compress(exif)), pixels
    yield (
        "directories in a circle.tif",
        tiff(4, 4, next_directory=8),
        np.resize(np.frombuffer(tiff(4, 4, next_directory=8)[8:24], np.uint8), (4, 4, 1)).repeat(3, 2),
    )
    yield "directory of 65535 entries.tif", b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(600), DAMAGED
    yield "strips that are not there.tif", tiff(4, 4)[:40], DAMAGED
    yield "rgb of one channel.tif", tiff(4, 4, (284, 3, 1, 9)), None


def loop_of_directories() -> bytes:
    """EXIF whose directory names itself as its next, and as the one of the camera and of the place."""
    entries = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8)
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 8)


def make_with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with a chunk more, behind its header."""
    return png[:33] + png_chunk(kind, data) + png[33:]


def write_files(folder: Path, files: Iterable[tuple[str, bytes, str | np.ndarray | None]]) -> list[Case]:
    """Write files under names that start with their number."""
    cases = []
    for i, (name, content, wanted) in enumerate(files):
        path = folder / f"{i:03} {name}"
        path.write_bytes(content)
        cases.append(Case(name, str(path), wanted))
    return cases


def no_files(folder: Path, content: bytes, pixels: np.ndarray) -> Iterator[Case]:
    """Directories, links, pipes, sockets, devices, and names that are hard to read."""
    (folder / "directory.png").mkdir()
    yield Case("directory", str(folder / "directory.png"), "a directory")
    (folder / "real.png").write_bytes(content)
    links = {"link": "real.png", "dead link": "absent.png", "loop": "loop.png", "link to a device": "/dev/zero"}
    wanted = [pixels, "leads to no file", "leads to no file", "pipe, socket or device"]
    for (name, target), expected in zip(links.items(), wanted, strict=True):
        (folder / f"{name}.png").symlink_to(target)
        yield Case(name, str(folder / f"{name}.png"), expected)
    os.mkfifo(folder / "pipe.png")
    yield Case("pipe", str(folder / "pipe.png"), "pipe, socket or device")
    with socket.socket(socket.AF_UNIX) as door:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path must be short
        door.bind("socket.png")
        os.chdir(before)
    yield Case("socket", str(folder / "socket.png"), "pipe, socket or device")
    for device in ("/dev/zero", "/dev/urandom", "/dev/null", "/dev/stdin"):
        if Path(device).exists():
            yield Case(device, device, "pipe, socket or device|0 bytes|not an image|no such file")
    for name in (b"caf\xe9.png", b"\xff\xfe.png", "\u202egnp.png".encode(), b"new\nline.png", b" .png"):
        path = os.fsdecode(bytes(folder) + b"/" + name)
        Path(path).write_bytes(content)
        yield Case(f"named {name!r}", path, pixels)
        yield Case(f"absent, named {name!r}", path + "x", "no such file")
    yield Case("name too long", str(folder / ("a" * 300 + ".png")), "not a usable path|no such file")
    yield Case("name with a null", str(folder / "a\0b.png"), "not a usable path|no such file")
    yield Case("through a file", str(folder / "real.png" / "inner.png"), "no such file")
    yield Case("empty name", "", "an empty path")
    yield Case("address", "https://example.org/a.png", "a URL")


JAIL = """
import json, os, resource, signal, sys
import torch
torch.set_num_threads(1)
from skxma import CLIPEncoder
from skxma.datasets import load_emoji
encoder = CLIPEncoder("tiny", memory=False, n_threads=1, precision="fp32", device="cpu")
encoder.encode_image(load_emoji().images[:1])
here = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    path, room, seconds = json.loads(line)
    out, back = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (here + room, here + room))
        signal.alarm(seconds)
        try:
            found = {"embedding": encoder.encode_image([path])[0].tolist()}
        except BaseException as error:
            found = {
                "error": type(error).__name__, "message": str(error),
                "index": getattr(error, "index", None), "path": getattr(error, "path", None),
            }
        found["kilobytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with os.fdopen(back, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(back)
    with os.fdopen(out) as pipe:
        found = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(found or json.dumps({"signal": signal.Signals(-status).name}), file=answers, flush=True)
"""


class Jail:
    """A process that encodes one file at a time in a child of its own, with little memory and little time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JAIL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def encode(self, path: str, megabytes: int = 1200, seconds: int = 60) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([path, megabytes * 2**20, seconds]), file=self.process.stdin, flush=True)
        found: dict = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
