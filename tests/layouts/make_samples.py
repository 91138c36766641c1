"""Writes samples/: small files of every layout by the programs that people use, and expected.json,
what those programs say is in them.

Needs the packages safetensors, torch, numpy and gguf, and mkfs.ext4, mkfs.xfs, mkfs.btrfs, sfdisk
and qemu-img. Run it by hand; the tests read what it wrote. Of images the part with the mark is
kept: the first 2 KiB, or what lies 64 KiB behind the start of btrfs.
"""

import json
import pathlib
import sqlite3
import subprocess
import zipfile

import gguf
import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
OUT = HERE / "samples"
OUT.mkdir(exist_ok=True)
rng = np.random.default_rng(20260101)
expected = {}


def floats(*shape):
    return (rng.standard_normal(shape) * 0.02).astype(np.float32)


def awkward():
    """Not-a-numbers with payloads, infinities, denormals, both zeros."""
    bits = [0x7FC00000, 0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 1, 0x80000001, 0x007FFFFF, 0, 0x80000000]
    return np.array(bits, dtype=np.uint32).view(np.float32)


def note(name, format, tensors):
    """tensors: (name, type, shape or None, the bytes)."""
    data = (OUT / name).read_bytes()
    found = []
    for tensor, dtype, shape, content in tensors:
        if not content:
            continue
        at = data.find(content)
        assert at >= 0 and data.find(content, at + 1) < 0, (name, tensor)
        shape = None if shape is None else list(shape)
        found.append({"name": tensor, "dtype": dtype, "shape": shape, "start": at, "end": at + len(content)})
    found.sort(key=lambda tensor: tensor["start"])
    expected[name] = {"format": format, "tensors": found}


NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64", torch.bool: "bool"}


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def of_torch(tensors):
    return [(name, NAMES[t.dtype], t.shape, raw(t)) for name, t in tensors.items()]


def weights():
    return {
        "embed.weight": torch.from_numpy(floats(200, 70)).to(torch.bfloat16),
        "layer.0.weight": torch.from_numpy(floats(40, 30)),
        "layer.0.half": torch.from_numpy(floats(50, 50)).half(),
        "layer.0.bias": torch.from_numpy(floats(33)),
        "odd": torch.from_numpy(rng.integers(0, 2, 37).astype(bool)),
        "layer.1.half": torch.from_numpy(floats(51)).half(),
        "none": torch.zeros((0, 7)),
        "awkward": torch.from_numpy(awkward()),
        "ids": torch.arange(100, 600),
    }


def safetensors_samples():
    state = weights()
    safetensors.torch.save_file(state, OUT / "torch.safetensors", metadata={"format": "pt"})
    note("torch.safetensors", "safetensors", of_torch(state))
    for shard in (1, 2):
        part = {f"layer.{shard}.weight": torch.from_numpy(floats(50, 50))}
        name = f"model-0000{shard}-of-00002.safetensors"
        safetensors.torch.save_file(part, OUT / name)
        note(name, "safetensors", of_torch(part))
    arrays = {"a": floats(7, 301), "b": rng.integers(-9, 9, 11).astype(np.int8)}
    safetensors.numpy.save_file(arrays, OUT / "numpy.safetensors")
    note("numpy.safetensors", "safetensors", [
        ("a", "f32", (7, 301), arrays["a"].tobytes()),
        ("b", "i8", (11,), arrays["b"].tobytes()),
    ])


def torch_samples():
    state = weights()
    state["tied"] = state["embed.weight"]
    torch.save(state, OUT / "state.pt")
    tensors = [t for t in of_torch(state) if t[0] != "tied"]
    note("state.pt", "pytorch", tensors)
    model = torch.nn.Linear(40, 30)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.from_numpy(floats(3, 40))).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, OUT / "train.pth")
    states = optimizer.state_dict()["state"]
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for number, slots in states.items():
        tensors |= {f"optimizer.state.{number}.{name}": t for name, t in slots.items()}
    # Every bias has had the same gradient, so that some contents are there twice.
    once = [(n, t) for n, t in tensors.items() if t.numel() > 100]
    note("train.pth", "pytorch", [(n, NAMES[t.dtype], t.shape, raw(t)) for n, t in once])
    expected["train.pth"]["only_some"] = True
    torch.save(torch.nn.Sequential(model), OUT / "module.pt")
    note("module.pt", "pytorch", [
        ("_modules.0._parameters.weight", "f32", (30, 40), raw(model.weight.detach())),
        ("_modules.0._parameters.bias", "f32", (30,), raw(model.bias.detach())),
    ])
    expected["module.pt"]["only_some"] = True
    torch.save(state, OUT / "legacy.bin", _use_new_zipfile_serialization=False)
    expected["legacy.bin"] = {"format": "plain", "tensors": []}
    torch.save({"view": torch.from_numpy(floats(60, 20))[10:20]}, OUT / "view.pt", pickle_protocol=4)
    expected["view.pt"] = {"format": "pytorch", "tensors": [], "only_some": True}


def numpy_samples():
    for name, version, array, dtype in [
        ("little.npy", (1, 0), floats(60, 33), "f32"),
        ("big.npy", (2, 0), floats(60, 33).astype(">f4"), "f32"),
        ("half.npy", (3, 0), floats(2000).astype(np.float16), "f16"),
        ("fortran.npy", (1, 0), np.asfortranarray(floats(50, 21).astype(np.float64)), "f64"),
        ("scalar.npy", (1, 0), np.array(7, dtype=np.int64), "i64"),
        ("text.npy", (1, 0), np.array(["one", "three"]), "unknown"),
    ]:
        with open(OUT / name, "wb") as file:
            np.lib.format.write_array(file, array, version=version)
        note(name, "npy", [("", dtype, array.shape, array.tobytes("A" if array.flags.fnc else "C"))])
    with open(OUT / "records.npy", "wb") as file:
        np.save(file, np.zeros(9, dtype=[("x", "<f4"), ("y", "<i8")]))
    expected["records.npy"] = {"format": "plain", "tensors": []}
    arrays = {"w": floats(90, 91), "big": floats(1000).astype(">f2"), "awkward": awkward()}
    np.savez(OUT / "three.npz", **arrays)
    note("three.npz", "npz", [
        ("w", "f32", (90, 91), arrays["w"].tobytes()),
        ("big", "f16", (1000,), arrays["big"].tobytes()),
        ("awkward", "f32", (10,), arrays["awkward"].tobytes()),
    ])
    np.savez_compressed(OUT / "packed.npz", **arrays)
    expected["packed.npz"] = {"format": "plain", "tensors": []}
    with zipfile.ZipFile(OUT / "other.zip", "w") as archive:
        archive.writestr("a.txt", "no tensors here")
    expected["other.zip"] = {"format": "plain", "tensors": []}


def gguf_samples():
    for name, order in [("little.gguf", gguf.GGUFEndian.LITTLE), ("big.gguf", gguf.GGUFEndian.BIG)]:
        writer = gguf.GGUFWriter(OUT / name, "llama", endianess=order)
        writer.add_block_count(2)
        writer.add_token_list([f"token{i}" for i in range(300)])
        writer.add_array("test.numbers", [1, 2, 3])
        writer.add_custom_alignment(64)
        plain = {"token_embd.weight": floats(64, 75), "output_norm.weight": floats(5), "blk.0.half": floats(64, 32).astype(np.float16)}
        for tensor, array in plain.items():
            writer.add_tensor(tensor, array.copy())
        found = [(tensor, "f32" if a.dtype == np.float32 else "f16", a.shape[::-1], swapped(a, order)) for tensor, a in plain.items()]
        if order == gguf.GGUFEndian.LITTLE:
            for kind in (gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.BF16):
                packed = gguf.quantize(floats(16, 256), kind)
                tensor = f"blk.1.{kind.name.lower()}"
                writer.add_tensor(tensor, packed, raw_dtype=kind)
                found.append((tensor, kind.name.lower(), (256, 16), packed.tobytes()))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        note(name, "gguf", found)


def swapped(array, order):
    return array.tobytes() if order == gguf.GGUFEndian.LITTLE else array.astype(array.dtype.newbyteorder(">")).tobytes()


def sqlite_samples():
    for page in (512, 4096, 16384):
        path = OUT / f"page{page}.db"
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as database:
            database.execute(f"pragma page_size = {page}")
            database.execute("create table t (n integer, text text)")
            database.executemany("insert into t values (?, ?)", [(n, f"row {n}") for n in range(200)])
        database.close()
        expected[path.name] = {"format": "sqlite", "page": page, "tensors": []}


def image_samples():
    image = OUT / "image"

    def sample(name, size, command, typed=None, skip=0, keep=2048):
        with open(image, "wb") as file:
            file.truncate(size)
        subprocess.run([*command, image], input=typed, check=True, stdout=subprocess.DEVNULL)
        with open(image, "rb") as file:
            file.seek(skip)
            (OUT / name).write_bytes(file.read(keep))
        image.unlink()

    sample("ext4.head", 16 << 20, ["mkfs.ext4", "-q", "-F"])
    sample("xfs.head", 400 << 20, ["mkfs.xfs", "-q", "-f"])
    sample("btrfs.super", 200 << 20, ["mkfs.btrfs", "-q", "-f"], skip=64 << 10, keep=4096)
    sample("gpt.head", 16 << 20, ["sfdisk", "-q"], typed=b"label: gpt\n,4M\n,\n")
    sample("mbr.head", 16 << 20, ["sfdisk", "-q"], typed=b"label: dos\n,4M,83\n,,82\n")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    (OUT / "qcow2.head").write_bytes(image.read_bytes()[:2048])
    image.unlink()


def main():
    safetensors_samples()
    torch_samples()
    numpy_samples()
    gguf_samples()
    sqlite_samples()
    image_samples()
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    sizes = {path.name: path.stat().st_size for path in sorted(OUT.iterdir())}
    print(sizes, sum(sizes.values()))


main()
