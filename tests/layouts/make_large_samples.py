"""Adds to samples/ what has to be large enough to be looked at when it is saved: files of 32 KiB and
more, written by the packages numpy and safetensors, and one that no program writes. Adds to
expected.json what is in them. Run by hand; make_samples.py makes the others.
"""

import json
import pathlib
import struct

import numpy as np
import safetensors.numpy

OUT = pathlib.Path(__file__).parent / "samples"
rng = np.random.default_rng(20260202)
expected = json.loads((OUT / "expected.json").read_text())


def floats(*shape):
    return (rng.standard_normal(shape) * 0.02).astype(np.float32)


def awkward(count):
    """Not-a-numbers with payloads, infinities, denormals and both zeros, in a row without end."""
    bits = [0x7FC00000, 0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 1, 0x80000001, 0x007FFFFF, 0, 0x80000000]
    bits = np.resize(np.array(bits, dtype=np.uint32), count)
    denormal = rng.integers(0, 2**23, count, dtype=np.uint32)
    return np.where(np.arange(count) % 3 == 0, denormal, bits).view(np.float32)


def note(name, format, tensors):
    """tensors: (name, type, the array)."""
    data = (OUT / name).read_bytes()
    assert len(data) >= 32 << 10, name
    found = []
    for tensor, dtype, array in tensors:
        content = array.tobytes()
        if not content:
            continue
        at = data.find(content)
        assert at >= 0 and data.find(content, at + 1) < 0, (name, tensor)
        found.append({"name": tensor, "dtype": dtype, "shape": list(array.shape), "start": at, "end": at + len(content)})
    found.sort(key=lambda tensor: tensor["start"])
    expected[name] = {"format": format, "tensors": found}


NAMES = {"f2": "f16", "f4": "f32", "f8": "f64", "i1": "i8", "i8": "i64"}


def save(name, arrays):
    safetensors.numpy.save_file(arrays, OUT / name)
    note(name, "safetensors", [(tensor, NAMES[array.dtype.str[1:]], array) for tensor, array in arrays.items()])


def main():
    for shard in (1, 2, 3):
        arrays = {
            f"layers.{shard}.weight": floats(90, 101),
            f"layers.{shard}.half": floats(51, 43).astype(np.float16),
            f"layers.{shard}.odd": rng.integers(-9, 9, 4099).astype(np.int8),
        }
        save(f"model-0000{shard}-of-00003.safetensors", arrays)
    save("empty.safetensors", {
        "a": floats(100, 50),
        "b": np.zeros((0, 5), np.float32),
        "c": np.zeros((7, 0), np.float16),
        "d": floats(100, 51),
    })
    save("awkward.safetensors", {"w": awkward(10_001), "x": awkward(4_001).astype(np.float16)})

    # Two tensors that share bytes: no program writes this.
    data = bytearray((OUT / "empty.safetensors").read_bytes())
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    at = header["d"]["data_offsets"]
    header["d"]["data_offsets"] = [at[0] - 400, at[1] - 400]
    text = json.dumps(header).encode()
    (OUT / "overlap.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[end:])
    expected["overlap.safetensors"] = {"format": "plain", "tensors": []}

    wide = floats(101, 101).astype(">f4")
    np.save(OUT / "wide-big.npy", wide)
    note("wide-big.npy", "npy", [("", "f32", wide)])
    half = floats(20_001).astype(np.float16)
    np.save(OUT / "wide-half.npy", half)
    note("wide-half.npy", "npy", [("", "f16", half)])
    arrays = {"odd": rng.integers(-9, 9, 4097).astype(np.int8), "w": floats(70, 71), "big": floats(9001).astype(">f2")}
    np.savez(OUT / "wide.npz", **arrays)
    note("wide.npz", "npz", [(name, NAMES[array.dtype.str[1:]], array) for name, array in arrays.items()])
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
