"""Real HEIC files, made here: no free encoder is at hand, so the pixels are coded as they are (PCM).

Every coding block of the HEVC picture says "raw samples follow". That needs no prediction and no
transform, only the frame around it: parameter sets, one slice, and for each block one arithmetic-coded
"not split", one "raw" flag, and a fresh start of the coder. What a phone writes is far denser, and is
decoded by the same library through the same door.
"""

import re
import struct

import numpy as np
from PIL import Image

BLOCK = 32
# Of the standard's table 9-52: the part of the range for the less probable symbol, by state, while the
# range is in its upper quarter. Here it always is: the coder starts anew after each raw block.
LESS_PROBABLE = (
    240, 227, 216, 205, 195, 185, 175, 166, 158, 150, 142, 135, 128, 122, 116, 110, 104, 99, 94, 89,
    85, 80, 76, 72, 69, 65, 62, 59, 56, 53, 50, 48, 45, 43, 41, 39, 37, 35, 33, 31, 30, 28, 27, 25,
    24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 14, 13, 12, 12, 11, 11, 10, 9,
)  # fmt: skip


class Bits:
    """Bits, the first the highest."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def u(self, count: int, value: int) -> None:
        """A number of so many bits."""
        self.bits += [value >> shift & 1 for shift in reversed(range(count))]

    def ue(self, *values: int) -> None:
        """Exponential Golomb numbers."""
        for value in values:
            length = (value + 1).bit_length()
            self.u(2 * length - 1, value + 1)

    def end(self) -> bytes:
        """A one, and zeros up to the byte."""
        self.u(1, 1)
        self.u(-len(self.bits) % 8, 0)
        return self.aligned()

    def aligned(self) -> bytes:
        """The bytes so far; zeros fill the last one."""
        padded = self.bits + [0] * (-len(self.bits) % 8)
        return np.packbits(np.array(padded, dtype=np.uint8)).tobytes()


class Coder:
    """The standard's arithmetic coder (9.3.4), as far as it is needed."""

    def __init__(self) -> None:
        self.low, self.range = 0, 510
        self.first, self.outstanding = True, 0
        self.out = Bits()

    def probable(self, state: int) -> None:
        """The more probable symbol."""
        self.range -= LESS_PROBABLE[state]

    def last(self, *, value: bool) -> None:
        """A terminating flag."""
        self.range -= 2
        if not value:
            return
        self.low += self.range
        self.range = 2
        while self.range < 256:
            if self.low >= 512:
                self._put(1)
                self.low -= 512
            elif self.low < 256:
                self._put(0)
            else:
                self.low -= 256
                self.outstanding += 1
            self.range <<= 1
            self.low <<= 1
        self._put(self.low >> 9 & 1)
        self.out.u(2, self.low >> 7 & 3 | 1)

    def _put(self, bit: int) -> None:
        if self.first:
            self.first = False
        else:
            self.out.u(1, bit)
        self.out.bits += [1 - bit] * self.outstanding
        self.outstanding = 0


def _profile(bits: Bits) -> None:
    bits.u(8, 3)  # Main Still Picture
    bits.u(32, 0x70000000)
    bits.u(4, 0b1001)
    bits.u(44, 0)
    bits.u(8, 120)


def _nal(kind: int, payload: bytes) -> bytes:
    guarded = re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)
    return bytes([kind << 1, 1]) + guarded


def _parameter_sets(width: int, height: int) -> list[bytes]:
    video = Bits()
    video.u(4, 0)
    video.u(2, 3)
    video.u(6, 0)
    video.u(3, 0)
    video.u(1, 1)
    video.u(16, 0xFFFF)
    _profile(video)
    video.u(1, 1)
    video.ue(0, 0, 0)
    video.u(6, 0)
    video.ue(0)
    video.u(2, 0)
    sequence = Bits()
    sequence.u(4, 0)
    sequence.u(3, 0)
    sequence.u(1, 1)
    _profile(sequence)
    sequence.ue(0, 1, width, height)
    sequence.u(1, 0)
    sequence.ue(0, 0, 4)
    sequence.u(1, 1)
    sequence.ue(0, 0, 0)
    sequence.ue(0, 2, 0, 3, 0, 0)  # blocks of 8 to 32, transforms of 4 to 32
    sequence.u(3, 0)
    sequence.u(1, 1)
    sequence.u(4, 7)
    sequence.u(4, 7)
    sequence.ue(0, 2)
    sequence.u(1, 1)  # PCM
    sequence.ue(0)
    sequence.u(5, 0)
    picture = Bits()
    picture.ue(0, 0)
    picture.u(7, 0)
    picture.ue(0, 0, 0)
    picture.u(3, 0)
    picture.ue(0, 0)
    picture.u(7, 0)
    picture.u(3, 0b101)
    picture.u(2, 0)
    picture.ue(0)
    picture.u(2, 0)
    return [_nal(32, video.end()), _nal(33, sequence.end()), _nal(34, picture.end())]


def _slice(ycc: np.ndarray) -> bytes:
    header = Bits()
    header.u(2, 0b10)
    header.ue(0, 2, 0)
    data = header.end()
    luma = ycc[:, :, 0]
    chroma = [ycc[::2, ::2, channel] for channel in (1, 2)]
    coder, state, half = Coder(), 0, BLOCK // 2
    for y in range(0, luma.shape[0], BLOCK):
        for x in range(0, luma.shape[1], BLOCK):
            coder.probable(state)  # not split
            state = min(state + 1, 62)
            coder.last(value=True)  # raw samples
            data += coder.out.aligned() + luma[y : y + BLOCK, x : x + BLOCK].tobytes()
            for plane in chroma:
                data += plane[y // 2 : y // 2 + half, x // 2 : x // 2 + half].tobytes()
            coder = Coder()
            done = y + BLOCK >= luma.shape[0] and x + BLOCK >= luma.shape[1]
            coder.last(value=done)  # the end of the slice
    return _nal(19, data + coder.out.aligned())


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + kind + body


def _full(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]), *content)


def heic(picture: Image.Image, *, turns: int = 0, brand: bytes = b"heic") -> bytes:
    """The picture, its sides cut to whole blocks; `turns` quarter turns to the left are for the reader."""
    width, height = (side // BLOCK * BLOCK for side in picture.size)
    ycc = np.asarray(picture.convert("YCbCr"))[:height, :width]
    sets = _parameter_sets(width, height)
    coded = _slice(ycc)
    arrays = b"".join(
        bytes([0x80 | kind]) + struct.pack(">HH", 1, len(nal)) + nal
        for kind, nal in zip((32, 33, 34), sets, strict=True)
    )
    config = (
        bytes([1, 3]) + struct.pack(">I", 0x70000000) + bytes([0x90, 0, 0, 0, 0, 0, 120])
        + bytes([0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, 3]) + arrays
    )  # fmt: skip
    properties = _box(
        b"ipco",
        _box(b"hvcC", config),
        _full(b"ispe", struct.pack(">II", width, height)),
        _box(b"irot", bytes([turns])),
        _box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0x80)),  # what Pillow's YCbCr means
    )
    used = _full(b"ipma", struct.pack(">IHB4B", 1, 1, 4, 0x81, 2, 0x83, 4))
    sample = struct.pack(">I", len(coded)) + coded
    start = _box(b"ftyp", brand, struct.pack(">I", 0), b"mif1", brand)

    def meta(offset: int) -> bytes:
        place = struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(sample))
        item = _full(b"infe", struct.pack(">HH4sB", 1, 0, b"hvc1", 0), version=2)
        return _full(
            b"meta",
            _full(b"hdlr", struct.pack(">I4s12sB", 0, b"pict", b"", 0)),
            _full(b"pitm", struct.pack(">H", 1)),
            _full(b"iinf", struct.pack(">H", 1), item),
            _box(b"iprp", properties, used),
            _full(b"iloc", place),
        )  # fmt: skip

    offset = len(start) + len(meta(0)) + 8
    return start + meta(offset) + _box(b"mdat", sample)
