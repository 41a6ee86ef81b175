"""The header of a GGUF file of unknown origin: shapes, or an error in bounded time."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwardscope.backends.hf.gguf_header import read_shapes

_BIG = 2**63


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small file with values of several types."""
    path = tmp_path_factory.mktemp("gguf") / "sound.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.5, 1.5, 2.5])
    writer.add_bool("yes", True)
    writer.add_tensor("one", np.zeros((4, 8), dtype=np.float32))
    writer.add_tensor("two", np.zeros(32, dtype=np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file):
        write()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_shapes_of_a_sound_file(sound: bytes, tmp_path: Path) -> None:
    """Each tensor has its shape, the fastest dimension first."""
    path = tmp_path / "a.gguf"
    path.write_bytes(sound)
    assert read_shapes(path) == [(8, 4), (32,)]


def test_tensors_that_overlap(sound: bytes, tmp_path: Path) -> None:
    """Tensors that share their bytes are together larger than the file."""
    tensor = struct.pack("<Q1sIQIQ", 1, b"t", 1, 40, 0, 0)
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 9, 0) + 9 * tensor + bytes(100))
    with pytest.raises(ValueError, match="overlap"):
        read_shapes(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"no model" * 9,
        b"GGUF" + struct.pack("<IQQ", 3, _BIG, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, _BIG),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, _BIG) + b"x" * 40,
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, _BIG) + b"x" * 40,
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1) + b"\t\0\0\0" * 99,
        b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77) + b"x" * 40,
        b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 9999) + b"x" * 99,
        b"GGUF" + struct.pack("<IQQQ1sIQQIQ", 3, 1, 0, 1, b"t", 2, _BIG, 4, 0, 0) + b"x" * 99,
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    ],
)
def test_lengths_beyond_the_file(tmp_path: Path, content: bytes) -> None:
    """A number that the file cannot hold is an error before anything is allocated for it."""
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        read_shapes(path)


@settings(
    max_examples=300, deadline=500, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_bytes(sound: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """A file with some bytes changed or missing has shapes, or an error."""
    changed = bytearray(sound[: data.draw(st.integers(0, len(sound)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.gguf"
    path.write_bytes(bytes(changed))
    try:
        shapes = read_shapes(path)
    except ValueError:
        return
    assert all(len(shape) <= 4 for shape in shapes)
