# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""The same order gives the same bytes: against the record, in another process, on more threads."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from darkroom.adapters.generation.studio.face import find_faces
from darkroom.adapters.generation.studio.reference import forget_references
from tests.studio.golden import ORDERS, build, fingerprint, made, recorded


@pytest.mark.parametrize("name", ORDERS)
def test_a_golden_order_gives_its_golden_picture(name: str):
    photo = made(name)
    known = recorded().get(build())
    if known is not None:
        assert fingerprint(photo) == known[name]
        return
    # Another build of the libraries rounds otherwise: the picture must still be a good one.
    picture = np.asarray(Image.open(io.BytesIO(photo.data)))
    assert picture.shape == (1024, 768, 3)
    assert find_faces(picture)


def test_the_same_order_twice_gives_the_same_bytes():
    first = made("alpine")
    forget_references()
    assert made("alpine") == first


@pytest.mark.parametrize("threads", [1, 2])
def test_another_process_gives_the_same_bytes_on_any_number_of_threads(threads: int):
    program = (
        "import sys, cv2\n"
        f"cv2.setNumThreads({threads})\n"
        "from tests.studio.golden import fingerprint, made\n"
        "sys.stdout.write(fingerprint(made('grey studio')) + fingerprint(made('oil')))\n"
    )
    answer = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout == fingerprint(made("grey studio")) + fingerprint(made("oil"))
