"""Adds to samples/ what has to be large enough to be looked at when it is saved: files of 32 KiB and
more, written by the packages numpy and safetensors, and one that no program writes; and weights of
several kinds, of 64 KiB and more, written by torch, gguf and safetensors. Adds to expected.json
what is in them. Run by hand; make_samples.py makes the others.
"""

import json
import pathlib
import struct

import gguf
import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

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
    note_bytes(name, format, [(tensor, dtype, array.shape, array.tobytes()) for tensor, dtype, array in tensors])


def note_bytes(name, format, tensors):
    """tensors: (name, type, shape, the bytes)."""
    data = (OUT / name).read_bytes()
    assert len(data) >= 32 << 10, name
    found = []
    for tensor, dtype, shape, content in tensors:
        if not content:
            continue
        at = data.find(content)
        assert at >= 0 and data.find(content, at + 1) < 0, (name, tensor)
        found.append({"name": tensor, "dtype": dtype, "shape": list(shape), "start": at, "end": at + len(content)})
    found.sort(key=lambda tensor: tensor["start"])
    expected[name] = {"format": format, "tensors": found}


NAMES = {"f2": "f16", "f4": "f32", "f8": "f64", "i1": "i8", "i8": "i64"}


def save(name, arrays):
    safetensors.numpy.save_file(arrays, OUT / name)
    note(name, "safetensors", [(tensor, NAMES[array.dtype.str[1:]], array) for tensor, array in arrays.items()])


OF_TORCH = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}


def weights():
    """Of every kind of float, with all that is special among them, and too small to be cut alone."""
    special = np.concatenate([floats(8_000), awkward(999)])
    return {
        "embed.weight": torch.from_numpy(floats(173, 131)).to(torch.bfloat16),
        "layer.0.weight": torch.from_numpy(floats(103, 97)),
        "layer.0.bias": torch.from_numpy(floats(97)),
        "layer.0.half": torch.from_numpy(floats(139, 83)).half(),
        "layer.1.weight": torch.from_numpy(special),
    }


def note_torch(name, format, state):
    raw = {tensor: t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor, t in state.items()}
    note_bytes(name, format, [(tensor, OF_TORCH[t.dtype], t.shape, raw[tensor]) for tensor, t in state.items()])


def save_gguf(name, order):
    writer = gguf.GGUFWriter(OUT / name, "llama", endianess=order)
    writer.add_block_count(1)
    is_little = order == gguf.GGUFEndian.LITTLE
    tensors = {"token_embd.weight": floats(97, 131), "blk.0.half": floats(139, 83).astype(np.float16), "output_norm.weight": floats(97)}
    found = []
    for tensor, array in tensors.items():
        writer.add_tensor(tensor, array.copy())
        stored = array if is_little else array.astype(array.dtype.newbyteorder(">"))
        found.append((tensor, NAMES[array.dtype.str[1:]], array.shape[::-1], stored.tobytes()))
    if is_little:
        kinds = gguf.GGMLQuantizationType
        for kind, rows in [(kinds.BF16, 90), (kinds.Q8_0, 30)]:
            packed = gguf.quantize(floats(rows, 256), kind)
            tensor = f"blk.0.{kind.name.lower()}"
            writer.add_tensor(tensor, packed, raw_dtype=kind)
            found.append((tensor, kind.name.lower(), (256, rows), packed.tobytes()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    note_bytes(name, "gguf", found)


def save_weights():
    state = weights()
    torch.save(state, OUT / "weights.pt")
    note_torch("weights.pt", "pytorch", state)
    state = weights()
    safetensors.torch.save_file(state, OUT / "weights.safetensors")
    note_torch("weights.safetensors", "safetensors", state)
    save_gguf("weights.gguf", gguf.GGUFEndian.LITTLE)
    save_gguf("weights-big.gguf", gguf.GGUFEndian.BIG)


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
    save_weights()
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
