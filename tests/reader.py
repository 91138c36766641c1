#!/usr/bin/env python3
"""A second reader of strongroom repositories, written from docs/format-v1.md alone.

    reader.py REPO list                       the snapshots
    reader.py REPO files SNAPSHOT             the files of one, with lengths
    reader.py REPO cat SNAPSHOT PATH [OUT]    one file, to standard output or into OUT

The password is in STRONGROOM_PASSWORD. SNAPSHOT is a prefix of an id, or a tag. In PATH a byte may
be written as %XX, which `files` does. What is not as the page says ends the program with a message
and exit code 1. Two things that the page offers are left out: a log with entries that cannot be
read is refused, also where a twin or a Void entry would help; and nothing is remembered between
runs, so that an older state of a whole repository is not noticed.

Needs Python 3.11 and the packages blake3, cryptography (44 or later) and zstandard.
"""

import os
import re
import sys
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

MIB = 1 << 20
ZEROS = bytes(32)


class Bad(Exception):
    """The bytes are not what the page says."""


class Newer(Bad):
    """The bytes were written by a newer program."""


def need(condition, message, error=Bad):
    if not condition:
        raise error(message)


def derive(context, message, length=32):
    return blake3(message, derive_key_context=context).digest(length=length)


def digest(data):
    return blake3(data).digest()


# ---------------------------------------------------------------- fixed layouts and records


class Fixed:
    """A cursor over a structure of fixed layout."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, length):
        need(length <= len(self.data) - self.at, f"{self.what} is cut short")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, width, most=None):
        value = int.from_bytes(self.take(width), "little")
        need(most is None or value <= most, f"{self.what}: {value} is out of range")
        return value

    def signed(self):
        return int.from_bytes(self.take(8), "little", signed=True)

    def zeros(self, count):
        need(self.take(count) == bytes(count), f"{self.what}: a reserved field is not zero")

    def head(self, magic):
        """Magic bytes and version."""
        need(self.take(8) == magic, f"{self.what} does not begin with {magic.decode()}")
        self.version()

    def version(self):
        version = self.number(1)
        need(version == 1, f"{self.what} has version {version}", Newer)

    def ext(self):
        tags = []
        for _ in range(self.number(2)):
            tags.append(self.number(2))
            self.take(self.number(4, 64 * MIB))
        check_tags(tags, self.what)

    def finish(self):
        need(self.at == len(self.data), f"{self.what}: bytes are left over")


def check_tags(tags, what):
    need(all(a < b for a, b in zip(tags, tags[1:])), f"{what}: extension tags out of order")
    need(all(tag < 0x8000 for tag in tags), f"{what}: unknown critical extension", Newer)


class Record(Fixed):
    """A record: bincode 2, standard configuration, one encoding for each value."""

    def __init__(self, data, what):
        need(len(data) <= 64 * MIB, f"{what} is too large")
        super().__init__(data, what)
        self.version()

    def uint(self, bits):
        first = self.number(1)
        if first < 251:
            return first
        width = {251: 2, 252: 4, 253: 8}.get(first)
        need(width is not None and width * 8 <= bits, f"{self.what}: not a u{bits}")
        value = self.number(width)
        least = 251 if width == 2 else 1 << (width * 4)
        need(value >= least, f"{self.what}: an integer is longer than it must be")
        return value

    def sint(self):
        value = self.uint(64)
        return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

    def bytes(self):
        return self.take(self.uint(64))

    def text(self):
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise Bad(f"{self.what}: a text is not UTF-8") from None

    def seq(self, element):
        return [element() for _ in range(self.uint(64))]

    def option(self, element):
        tag = self.number(1)
        need(tag < 2, f"{self.what}: not an option")
        return element() if tag else None

    def id(self):
        return self.take(32)

    def ids(self):
        return self.seq(self.id)

    def variant(self, count):
        value = self.uint(32)
        need(value < count, f"{self.what}: unknown variant {value}", Newer)
        return value

    def time(self):
        seconds, nanos = self.sint(), self.uint(32)
        need(nanos < 10**9, f"{self.what}: not a time")
        return seconds, nanos

    def ext(self):
        check_tags([tag for tag, _ in self.seq(lambda: (self.uint(16), self.bytes()))], self.what)

    def end(self):
        self.ext()
        self.finish()


def unframe(kind, data, what):
    """The inner bytes of an object that stands three times, and what is behind the copies."""
    lengths = [48 + int.from_bytes(data[12:16], "little")]
    lengths += [int.from_bytes(data[-12:][i : i + 4], "little") for i in (0, 4, 8)]
    failure = Bad(f"{what}: no copy is intact")
    for length in dict.fromkeys(lengths):
        for copy in range(3):
            frame = Fixed(data[copy * length : (copy + 1) * length], what)
            try:
                frame.head(b"STRONGRM")
                need(frame.number(1) == kind, f"{what} is another kind of object")
                frame.zeros(2)
                size, checksum = frame.number(4), frame.take(32)
                inner = frame.take(size)
                frame.finish()
                need(digest(inner) == checksum, f"{what} does not match its checksum")
                return inner, data[3 * length : -12]
            except Newer as newer:
                failure = newer
            except Bad:
                continue
    raise failure


# ---------------------------------------------------------------- seals


@dataclass
class Keys:
    """What a bundle holds."""

    domain: bytes
    id: bytes
    meta: dict
    data: dict

    def blob_id(self, kind, plain):
        return blake3(plain, key=derive("strongroom v1 id", self.id + bytes([kind]))).digest()


def aes_open(key, nonce, sealed, aad, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Bad(f"{what}: the sealed bytes were altered") from None


class SealKey:
    """The key of one sealed object, from its header."""

    def __init__(self, keys, kind, cursor):
        start, self.what = cursor.at, cursor.what
        cursor.head(b"STRONGSL")
        need(cursor.number(1) == kind, f"{self.what} is sealed as another kind")
        need(cursor.number(1) == 0, f"{self.what}: unknown key mode", Newer)
        cursor.zeros(1)
        epoch, salt, commit = cursor.take(16), cursor.take(32), cursor.take(32)
        need(cursor.number(2) == 0, f"{self.what}: key material")
        self.hash = digest(cursor.data[start : cursor.at])
        root = (keys.data if kind == 1 else keys.meta).get(epoch)
        need(root is not None, f"{self.what}: its epoch is not in the keyring")
        message = root + salt + keys.domain + bytes([kind])
        derived = derive("strongroom v1 seal", message, 64)
        need(bytes_eq(derived[32:], commit), f"{self.what} belongs to another repository")
        self.key = derived[:32]

    def open(self, segment, sealed, length, codec, kind=0, blob=ZEROS, base=None):
        number = segment.to_bytes(4, "big")
        aad = self.hash + bytes([kind]) + number + blob + length.to_bytes(4, "little")
        aad += bytes([codec, base is not None]) + (base or ZEROS)
        return aes_open(self.key, bytes(8) + number, sealed, aad, self.what)


def open_object(keys, kind, data, what):
    """The plain bytes of a sealed metadata object."""
    cursor = Fixed(data, what)
    key = SealKey(keys, kind, cursor)
    codec, length = cursor.number(1), cursor.number(4, 64 * MIB)
    need(codec in (1, 2), f"{what}: unknown codec {codec}", Newer)
    plain = key.open(0, data[cursor.at :], length, codec)
    return decode(codec, plain, length, what)


# ---------------------------------------------------------------- codecs


def unzstd(frame, length, what, base=b""):
    need(frame[:4] == b"\x28\xb5\x2f\xfd", f"{what}: not a zstd frame")
    need(len(frame) > 5 and frame[4] & 0x1F == 0, f"{what}: a zstd feature that is not allowed")
    raw = zstandard.DICT_TYPE_RAWCONTENT
    front = zstandard.ZstdCompressionDict(base, dict_type=raw) if base else None
    decoder = zstandard.ZstdDecompressor(dict_data=front, max_window_size=16 * MIB).decompressobj()
    try:
        parameters = zstandard.get_frame_parameters(frame)
        need(parameters.window_size <= 16 * MIB, f"{what}: zstd window too large")
        need(parameters.content_size == length, f"{what}: wrong content size")
        plain = decoder.decompress(frame)
    except zstandard.ZstdError as error:
        raise Bad(f"{what}: {error}") from None
    need(decoder.eof and not decoder.unused_data, f"{what}: not one whole zstd frame")
    need(len(plain) == length, f"{what}: wrong length")
    return plain


def unplane(width, data, length, what, base=None):
    cursor = Fixed(data, what)
    phase, flags = cursor.number(1, width - 1), cursor.number(1)
    need(flags >> width == 0, f"{what}: unknown plane flags", Newer)
    lengths = [cursor.number(4) for _ in range(width)]
    head = cursor.take(min(length, (width - phase) % width))
    count, rest = divmod(length - len(head), width)
    tail = cursor.take(rest)
    elements = bytearray(count * width)
    for i, stored in enumerate(lengths):
        plane = cursor.take(stored)
        plane = unzstd(plane, count, what) if flags >> i & 1 else plane
        need(len(plane) == count, f"{what}: a plane of a wrong length")
        elements[i::width] = plane
    cursor.finish()
    top = width * 8 - 1
    half = 1 << top
    out = bytearray()
    if base is not None:
        base = base[:length].ljust(length, b"\0")[len(head) :]
    for at in range(0, len(elements), width):
        value = int.from_bytes(elements[at : at + width], "little")
        if base is None:
            value = value >> 1 | (value & 1) << top
        else:
            step = value >> 1 if value & 1 == 0 else -(value >> 1) - 1
            old = int.from_bytes(base[at : at + width], "little")
            ordered = (old + half if old < half else 2 * half - 1 - old) + step
            ordered %= 2 * half
            value = ordered - half if ordered >= half else 2 * half - 1 - ordered
        out += value.to_bytes(width, "little")
    return head + bytes(out) + tail


def decode(codec, data, length, what, base=None):
    need(codec > 8 or (base is not None) == (codec in (6, 7, 8)), f"{what}: base and codec disagree")
    if codec == 1:
        need(len(data) == length, f"{what}: wrong length")
        return data
    if codec == 2:
        return unzstd(data, length, what)
    if codec == 8:
        return unzstd(data, length, what, base)
    width = {3: 2, 4: 4, 5: 2, 6: 2, 7: 4}.get(codec)
    need(width is not None, f"{what}: unknown codec {codec}", Newer)
    return unplane(width, data, length, what, base)


# ---------------------------------------------------------------- slots and keyrings


@dataclass
class Identity:
    """A person's secret keys and the anchor of the log."""

    wrap: X25519PrivateKey
    slot: bytes
    repo: bytes
    owner: bytes


def slot_id(wrap, sign):
    return derive("strongroom v1 slot id", wrap + sign)


def open_slot(inner, password):
    """The identity, or None where this is not its password."""
    cursor = Fixed(inner, "slot")
    cursor.head(b"STRONGSK")
    role = cursor.number(1)
    need(1 <= role <= 5, f"unknown role {role}", Newer)
    cursor.zeros(2)
    cursor.take(12)
    cursor.take(cursor.number(4, 1024)).decode()
    wrap, sign = cursor.take(32), cursor.take(32)
    cursor.take(32 + 64)
    memory, passes, lanes = (cursor.number(4) for _ in range(3))
    need(65536 <= memory <= 4 << 20, "slot: memory out of range")
    need(3 <= passes <= 32 and 1 <= lanes <= 64, "slot: passes or lanes out of range")
    salt, commit = cursor.take(32), cursor.take(32)
    aad = inner[: cursor.at]
    sealed = cursor.take(cursor.number(4, 65536))
    cursor.finish()
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    derived = derive("strongroom v1 slot", kdf.derive(password), 64)
    if not bytes_eq(derived[32:], commit):
        return None
    secrets = Fixed(aes_open(derived[:32], bytes(12), sealed, aad, "slot"), "slot secrets")
    private = X25519PrivateKey.from_private_bytes(secrets.take(32))
    signing = Ed25519PrivateKey.from_private_bytes(secrets.take(32))
    repo, owner = secrets.take(16), secrets.take(32)
    secrets.finish()
    public = (private.public_key().public_bytes_raw(), signing.public_key().public_bytes_raw())
    need(public == (wrap, sign), "the slot was altered")
    return Identity(private, slot_id(wrap, sign), repo, owner)


def hmac_sha256(key, message):
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(message)
    return mac.finalize()


def hpke_open(private, enc, info, sealed):
    """RFC 9180: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; sequence 0."""

    def extract(suite, salt, label, material):
        return hmac_sha256(salt or ZEROS, b"HPKE-v1" + suite + label + material)

    def expand(suite, secret, label, context, length):
        text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac_sha256(secret, text + b"\x01")[:length]

    kem, hpke = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + private.public_key().public_bytes_raw()
    secret = extract(kem, b"", b"eae_prk", shared)
    secret = expand(kem, secret, b"shared_secret", context, 32)
    context = b"\x00" + extract(hpke, b"", b"psk_id_hash", b"")
    context += extract(hpke, b"", b"info_hash", info)
    secret = extract(hpke, secret, b"secret", b"")
    key = expand(hpke, secret, b"key", context, 32)
    nonce = expand(hpke, secret, b"base_nonce", context, 12)
    return aes_open(key, nonce, sealed, b"", "key bundle")


def open_keyring(inner, log, config, identity):
    ring = Record(inner, "keyring")
    repo, domain, number = ring.take(16), ring.take(16), ring.uint(64)
    need((repo, domain, number) == (log.repo, log.domain, log.keyring), "a foreign keyring")
    need(ring.bytes() == config, "the configuration is not that of the keyring")
    bundles = ring.seq(lambda: (ring.id(), ring.number(1), ring.id(), ring.bytes()))
    ring.end()
    mine = [bundle for bundle in bundles if bundle[0] == identity.slot]
    need(mine, "the keyring has no keys for this slot")
    slot, role, enc, sealed = mine[0]
    info = b"strongroom v1 keyring" + repo + domain + number.to_bytes(8, "little")
    plain = hpke_open(identity.wrap, enc, info + bytes([role]) + slot, sealed)
    bundle = Record(plain, "key bundle")
    id_key, _cdc = bundle.id(), bundle.id()
    meta, data = (dict(bundle.seq(lambda: (bundle.take(16), bundle.id()))) for _ in range(2))
    bundle.end()
    need(meta and data, "a key bundle without an epoch")
    return Keys(domain, id_key, meta, data)


# ---------------------------------------------------------------- the log

GENESIS, KEY_CHANGE, VOID = 1, 10, 13
WRITERS = {2: (1, 3), 3: (1, 3), 4: (1, 4), 5: (1, 4), 6: (1, 4), 7: (1, 4), 8: (1, 4), 9: (1, 4)}
WRITERS |= {1: (1,), 10: (1,), 11: (1,), 12: (1, 5), 13: (1,)}


@dataclass
class Entry:
    """One verified entry."""

    number: int
    kind: int
    role: int
    body: bytes
    parts: dict


@dataclass
class Log:
    """The chain of entries, and what they mean."""

    store: Path
    repo: bytes
    domain: bytes
    owner: bytes
    keyring: int = 0
    keyring_hash: bytes = b""
    slots: dict = field(default_factory=dict)
    entries: list = field(default_factory=list)
    snapshots: dict = field(default_factory=dict)
    removed: dict = field(default_factory=dict)
    indexes: dict = field(default_factory=dict)
    dropped: set = field(default_factory=set)
    swept: set = field(default_factory=set)
    ignored: list = field(default_factory=list)

    def path(self, number):
        return self.store / "log" / f"{number:020}"

    def read(self):
        """Verifies the chain from the first entry to the tail."""
        prev, number = ZEROS, 1
        while self.path(number).exists():
            prev = self.accept(number, prev)
            number += 1
        need(number > 1, "there is no log")
        for k in range(11):
            above = number + (1 << k)
            need(not self.path(above).exists(), f"log entry {number} is missing below {above}")

    def accept(self, number, prev):
        what = f"log entry {number}"
        inner, inline = unframe(5, self.path(number).read_bytes(), what)
        need(len(inner) <= 4 * MIB, f"{what} is too large")
        head = Fixed(inner[:-64], what)
        head.head(b"STRONGLG")
        kind = head.number(1)
        need(kind in WRITERS, f"{what}: unknown kind {kind}", Newer)
        head.zeros(2)
        need(head.number(8) == number, f"{what} has another number")
        need(head.take(32) == prev, f"{what} does not follow the entry before it")
        writer = head.take(32)
        head.take(16 + 8)
        need(head.number(4) < 10**9, f"{what}: not a time")
        mode = 0 if kind in (GENESIS, KEY_CHANGE, VOID) else 1
        need(head.number(1) == mode, f"{what}: wrong body mode")
        body = head.take(head.number(4))
        parts = {}
        for _ in range(head.number(2, 8)):
            part_kind = head.number(1)
            need(part_kind in (1, 2), f"{what}: unknown part", Newer)
            length, part_hash = head.number(4, 65536), head.take(32)
            parts[part_hash], inline = inline[:length], inline[length:]
        head.ext()
        head.finish()
        if number == 1:
            self.first(kind, body, writer)
        need(writer in self.slots, f"{what}: its writer is unknown")
        role, public = self.slots[writer]
        try:
            key = Ed25519PublicKey.from_public_bytes(public)
            key.verify(inner[-64:], b"strongroom v1 log" + head.data)
        except InvalidSignature:
            raise Bad(f"{what}: wrong signature") from None
        if kind == KEY_CHANGE and role in WRITERS[kind]:
            self.change_keys(number, body)
        self.entries.append(Entry(number, kind, role, body, parts))
        return digest(inner)

    def first(self, kind, body, writer):
        need(kind == GENESIS, "the log does not begin with its first entry")
        keys = self.key_list(body)
        ours = keys is not None and keys[:2] == (self.repo, self.domain)
        need(ours, "the log of another repository")
        self.keyring, self.keyring_hash, self.slots = keys[2:]
        need(self.slots.get(writer) == (1, self.owner), "the log has another first owner")

    def change_keys(self, number, body):
        keys = self.key_list(body)
        follows = keys is not None and keys[:2] == (self.repo, self.domain)
        if follows and keys[2] > self.keyring:
            self.keyring, self.keyring_hash, self.slots = keys[2:]
        else:
            self.ignored.append(number)

    @staticmethod
    def key_list(body):
        """The fields of a key list, or None where it is none that counts."""
        try:
            record = Record(body, "key list")
            repo, domain = record.take(16), record.take(16)
            keyring, keyring_hash = record.uint(64), record.id()
            one = lambda: (record.id(), record.number(1), record.id(), record.id())
            slots = record.seq(one)
            record.end()
        except Newer:
            raise
        except Bad:
            return None
        need(all(1 <= role <= 5 for _, role, _, _ in slots), "unknown role", Newer)
        live = {slot: (role, sign) for slot, role, _, sign in slots}
        named = all(slot == slot_id(wrap, sign) for slot, _, wrap, sign in slots)
        owned = any(role == 1 for _, role, _, _ in slots)
        counts = named and owned and len(live) == len(slots)
        return (repo, domain, keyring, keyring_hash, live) if counts else None

    def fold(self, keys):
        """What the entries mean."""
        for entry in self.entries:
            if entry.kind in (GENESIS, KEY_CHANGE, VOID):
                continue
            if entry.role not in WRITERS[entry.kind]:
                self.ignored.append(entry.number)
                continue
            what = f"body of log entry {entry.number}"
            try:
                self.follow(entry, Record(open_object(keys, 5, entry.body, what), what))
            except Newer:
                raise
            except Bad:
                self.ignored.append(entry.number)

    def add(self, entry, indexes):
        for index in indexes:
            if index not in self.dropped:
                self.indexes.setdefault(index, entry.parts.get(index))

    def follow(self, entry, body):
        """Reads the whole body before anything is changed."""
        if entry.kind == 2:
            indexes = body.ids()
            body.end()
            self.add(entry, indexes)
        elif entry.kind == 3:
            snapshot, indexes, _base = body.id(), body.ids(), body.uint(64)
            body.end()
            self.add(entry, indexes)
            self.removed.pop(snapshot, None)
            self.snapshots.setdefault(snapshot, entry.parts.get(snapshot))
        elif entry.kind in (4, 5):
            snapshots = body.ids()
            body.end()
            here, there = self.snapshots, self.removed
            if entry.kind == 5:
                here, there = there, here
            for snapshot in snapshots:
                if snapshot in here:
                    there[snapshot] = here.pop(snapshot)
        elif entry.kind == 6:
            body.take(16)
            packs, drop, add, forget = (body.ids() for _ in range(4))
            body.end()
            need(len(packs) <= 1000, "too many packs in a sweep")
            self.swept.update(packs)
            self.dropped.update(drop)
            for index in drop:
                self.indexes.pop(index, None)
            self.add(entry, add)
            for snapshot in forget:
                self.removed.pop(snapshot, None)
        elif entry.kind == 9:
            pairs, indexes = body.seq(lambda: (body.id(), body.id())), body.ids()
            body.end()
            self.add(entry, indexes)
            for old, new in pairs:
                if old != new and old in self.snapshots:
                    self.removed[old] = self.snapshots.pop(old)
                    self.removed.pop(new, None)
                    self.snapshots.setdefault(new, entry.parts.get(new))


# ---------------------------------------------------------------- the repository


@dataclass
class Found:
    """Where a copy of a blob lies."""

    pack: bytes
    header: bytes
    kind: int
    codec: int
    base: bytes | None
    segment: int
    offset: int
    sealed: int
    length: int


class Repository:
    """An open repository."""

    def __init__(self, folder, password):
        self.store = Path(folder)
        config = self.read_config()
        cursor = Fixed(config, "configuration")
        cursor.head(b"STRONGCF")
        cursor.zeros(3)
        repo, domain = cursor.take(16), cursor.take(16)
        need(cursor.number(8) == 0, "an unknown mandatory feature", Newer)
        cursor.number(8)
        sealed = cursor.take(cursor.number(4, 64 * MIB))
        cursor.finish()
        identity = self.find_slot(password)
        need(identity.repo == repo, "the slot is another repository's")
        self.log = Log(self.store, repo, domain, identity.owner)
        self.log.read()
        what = f"keyring/{self.log.keyring:020}"
        ring, _ = unframe(3, (self.store / what).read_bytes(), what)
        need(digest(ring) == self.log.keyring_hash, "the keyring is not the one the log names")
        self.keys = open_keyring(ring, self.log, config, identity)
        open_object(self.keys, 2, sealed, "configuration")
        self.log.fold(self.keys)
        self.blobs, self.seals = {}, {}
        for index, inline in self.log.indexes.items():
            self.read_index(index, inline)

    def read_config(self):
        failure = Bad("there is no repository here")
        for name in ("config", "config.2"):
            try:
                return unframe(1, (self.store / name).read_bytes(), name)[0]
            except FileNotFoundError:
                continue
            except Bad as bad:
                failure = bad
        raise failure

    def find_slot(self, password):
        tried, failure = 0, None
        for path in sorted((self.store / "keys").iterdir()):
            if tried == 20 or not re.fullmatch("[0-9a-f]{64}", path.name):
                continue
            tried += 1
            try:
                inner, _ = unframe(2, path.read_bytes(), f"keys/{path.name}")
                need(digest(inner).hex() == path.name, f"keys/{path.name} is another object")
                identity = open_slot(inner, password)
            except (Bad, ValueError) as bad:
                failure = failure or bad
                continue
            if identity is not None:
                return identity
        raise failure or Bad(f"wrong password, tried on {tried} slots")

    def read_index(self, index, inline):
        what = f"index/{index.hex()}"
        data = inline if inline is not None else (self.store / what).read_bytes()
        need(digest(data) == index, f"{what} is another object")
        body = Fixed(open_object(self.keys, 3, data, what), what)
        body.version()
        for _ in range(body.number(4)):
            pack, length = body.take(32), body.number(8)
            header = body.take(body.number(2))
            for _ in range(body.number(4, 65536)):
                blob, found = read_entry(body, pack, header)
                need(found.offset + found.sealed <= length, f"{what}: a blob outside its pack")
                if pack not in self.log.swept:
                    self.blobs.setdefault(blob, []).append(found)
            body.ext()
        body.ext()
        body.finish()

    def blob(self, kind, blob, whole=False):
        """The plain bytes of a blob, from whichever copy is good; `whole`: that is no delta."""
        failure = Bad(f"blob {blob.hex()} is nowhere")
        for found in self.blobs.get(blob, ()):
            if whole and found.base is not None:
                continue
            try:
                need(found.kind == kind, f"blob {blob.hex()} is of another kind")
                return self.open_blob(blob, found)
            except (Bad, OSError) as error:
                failure = error
        raise failure

    def open_blob(self, blob, found):
        what = f"packs/{found.pack.hex()[:2]}/{found.pack.hex()}"
        if found.pack not in self.seals:
            cursor = Fixed(found.header, what)
            self.seals[found.pack] = SealKey(self.keys, 1, cursor)
            cursor.finish()
            self.check_pack(found.pack, what)
        with open(self.store / what, "rb") as file:
            file.seek(found.offset)
            sealed = file.read(found.sealed)
        key = self.seals[found.pack]
        codec, length = found.codec, found.length
        encoded = key.open(found.segment, sealed, length, codec, found.kind, blob, found.base)
        base = None if found.base is None else self.blob(found.kind, found.base, whole=True)
        plain = decode(codec, encoded, length, what, base)
        need(self.keys.blob_id(found.kind, plain) == blob, f"{what}: not the blob {blob.hex()}")
        return plain

    def check_pack(self, pack, what):
        """A pack's name and lengths, its padding, and its table of contents against the index."""
        data = (self.store / what).read_bytes()
        trailer = Fixed(data[-44:], what)
        trailer.head(b"STRONGPK")
        trailer.zeros(3)
        offset, length, padding = (trailer.number(4, 1 << 30) for _ in range(3))
        size, count = trailer.number(4), trailer.number(4)
        trailer.zeros(4)
        end = offset + length
        covered = end + padding
        need(covered <= 1 << 30, f"{what} is too large")
        need(size in {512 << n for n in range(8)}, f"{what}: wrong shard size")
        need(count == -(-covered // size), f"{what}: wrong number of shards")
        need(len(data) == covered + 16 * count + 44, f"{what}: wrong length")
        need(not any(data[end:covered]), f"{what}: padding is not zero")
        toc = data[offset:end]
        name = data[:94] + toc + padding.to_bytes(4, "little") + data[covered:]
        need(digest(name) == pack, f"{what}: its content does not match its name")
        plain = self.seals[pack].open(0xFFFFFFFF, toc, length - 16, 1)
        table = Fixed(plain, f"table of contents of {what}")
        table.version()
        at, segments = 94, set()
        for _ in range(table.number(4, 65536)):
            blob, found = read_entry(table, pack, data[:94])
            need(found.offset == at, f"{table.what}: a gap")
            at += found.sealed
            segments.add(found.segment)
            listed = self.blobs.get(blob, [])
            need(found in listed, f"{what}: the index says otherwise of blob {blob.hex()}")
        table.ext()
        table.finish()
        need(at == offset and segments == set(range(len(segments))), f"{table.what} is malformed")

    def snapshots(self):
        """Id and record of every live snapshot."""
        for snapshot, inline in self.log.snapshots.items():
            what = f"snap/{snapshot.hex()}"
            if inline is None:
                inline, _ = unframe(4, (self.store / what).read_bytes(), what)
            need(digest(inline) == snapshot, f"{what} is another object")
            yield snapshot, read_snapshot(open_object(self.keys, 4, inline, what))

    def entries(self, page_id, depth=0):
        """The entries of a directory, in order."""
        need(depth <= 16, "a directory of too many levels")
        page = Record(self.blob(2, page_id), "tree page")
        if page.variant(2) == 0:
            entries = page.seq(lambda: read_node(page))
            page.end()
            need(entries or depth == 0, "an empty page in a directory")
            yield from entries
            return
        children = page.seq(lambda: (page.bytes(), page.id()))
        page.end()
        need(children, "an empty page in a directory")
        before = b""
        for last, child in children:
            name = before
            for entry in self.entries(child, depth + 1):
                need(entry["name"] > name, "names of a directory are out of order")
                name = entry["name"]
                yield entry
            need(name == last, "a directory page ends with another name")
            before = last

    def extents(self, content):
        if content[0] == "inline":
            yield from content[1]
        else:
            for extent, _ in self.extent_page(*content[1:]):
                yield extent

    def extent_page(self, page_id, level):
        """The extents below a page, with their lengths."""
        need(level <= 8, "an extent list of too many levels")
        page = Record(self.blob(3, page_id), "extent page")
        if page.variant(2) == 0:
            need(level == 0, "extents where pages should be")
            extents = page.seq(lambda: read_extent(page))
            page.end()
            need(0 < len(extents) <= 1024, "an extent page of a wrong size")
            yield from ((extent, extent[1]) for extent in extents)
            return
        need(level > 0, "pages where extents should be")
        children = page.seq(lambda: (page.uint(64), page.id()))
        page.end()
        need(0 < len(children) <= 1024, "an extent page of a wrong size")
        for length, child in children:
            total = 0
            for extent, size in self.extent_page(child, level - 1):
                total += size
                yield extent, size
            need(total == length, "an extent page has another length than its parent says")

    def content(self, node):
        """The bytes of a file, piece by piece."""
        total = 0
        for kind, length, blob in self.extents(node["content"]):
            total += length
            if kind == 0:
                data = self.blob(1, blob)
                need(len(data) == length, "a blob of another length than its extent")
                yield data
            else:
                for at in range(0, length, MIB):
                    yield bytes(min(MIB, length - at))
        need(total == node["size"], "a file's extents are not of its size")

    def walk(self, tree):
        """Path and node of everything below a root page."""
        open_dirs = [(b"", self.entries(tree))]
        while open_dirs:
            path, entries = open_dirs[-1]
            node = next(entries, None)
            if node is None:
                open_dirs.pop()
                continue
            here = path + node["name"]
            yield here, node
            if node["kind"] == 1:
                open_dirs.append((here + b"/", self.entries(node["tree"])))


def read_entry(cursor, pack, header):
    """One line of a table of contents: the blob and where it lies."""
    kind, codec, flags = cursor.number(1), cursor.number(1), cursor.number(1)
    need(1 <= kind <= 4 and flags <= 1, f"{cursor.what}: unknown blob kind or flags", Newer)
    cursor.zeros(1)
    segment, offset = cursor.number(4, 65535), cursor.number(4, 1 << 30)
    sealed, length = cursor.number(4, 1 << 30), cursor.number(4, 16 * MIB)
    need(sealed >= 16, f"{cursor.what}: a sealed length below 16")
    blob = cursor.take(32)
    base = cursor.take(32) if flags else None
    return blob, Found(pack, header, kind, codec, base, segment, offset, sealed, length)


def read_snapshot(plain):
    record = Record(plain, "snapshot")
    snapshot = {"time": record.time(), "tree": record.id(), "paths": record.seq(record.bytes)}
    snapshot |= {"host": record.text(), "user": record.text()}
    snapshot |= {"uid": record.uint(32), "gid": record.uint(32)}
    snapshot |= {"tags": record.seq(record.text), "excludes": record.seq(record.text)}
    snapshot |= {"parent": record.option(record.id), "program": record.text()}
    snapshot["summary"] = [record.time(), record.time()] + [record.uint(64) for _ in range(12)]
    origin = lambda: (record.take(16), record.uint(64), record.time())
    snapshot["origin"] = record.option(origin)
    record.end()
    return snapshot


def read_extent(record):
    """Kind, length, and the blob of data."""
    kind = record.variant(3)
    length = record.uint(32 if kind == 0 else 64)
    need(length > 0, "an empty extent")
    return kind, length, record.id() if kind == 0 else None


def read_node(record):
    """One entry of a directory."""
    node = {"name": record.bytes(), "kind": record.variant(7)}
    name = node["name"]
    good = name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name
    need(good and len(name) <= 1024, "a name that no file can have")
    if node["kind"] == 0:
        node["size"] = record.uint(64)
        if record.variant(2) == 0:
            node["content"] = ("inline", record.seq(lambda: read_extent(record)))
        else:
            node["content"] = ("list", record.id(), record.number(1))
    elif node["kind"] == 1:
        node["tree"] = record.id()
    elif node["kind"] == 2:
        node["target"] = record.bytes()
    elif node["kind"] in (3, 4):
        node["device"] = (record.uint(32), record.uint(32))
    node |= {"mode": record.uint(16), "uid": record.uint(32), "gid": record.uint(32)}
    need(node["mode"] <= 0o7777, "a mode that no file can have")
    node |= {"user": record.bytes(), "group": record.bytes()}
    node |= {"mtime": record.time(), "ctime": record.time(), "atime": record.option(record.time)}
    node |= {"flags": record.uint(32)}
    node["xattrs"] = record.seq(lambda: (record.bytes(), record.bytes()))
    node["link"] = record.option(lambda: (record.uint(32), record.uint(64)))
    record.ext()
    return node


def choose(repository, wanted):
    matches = [
        record
        for snapshot, record in repository.snapshots()
        if snapshot.hex().startswith(wanted) or wanted in record["tags"]
    ]
    need(len(matches) == 1, f"{len(matches)} snapshots are called {wanted}")
    return matches[0]


def extract(repository, snapshot, path, out):
    wanted = urllib.parse.unquote_to_bytes(path).strip(b"/").split(b"/")
    tree = choose(repository, snapshot)["tree"]
    for depth, name in enumerate(wanted):
        node = next((node for node in repository.entries(tree) if node["name"] == name), None)
        need(node is not None, f"there is no {path}")
        last = depth == len(wanted) - 1
        need(node["kind"] == (0 if last else 1), f"{path} is not a file")
        tree = node.get("tree")
    for piece in repository.content(node):
        out.write(piece)


def main(args):
    password = os.environb.get(b"STRONGROOM_PASSWORD", b"")
    forms = {("list", 2), ("files", 3), ("cat", 4), ("cat", 5)}
    if len(args) < 2 or (args[1], len(args)) not in forms:
        print(__doc__, file=sys.stderr)
        return 2
    repository = Repository(args[0], password)
    if args[1] == "list":
        for snapshot, record in repository.snapshots():
            seconds, _ = record["time"]
            print(snapshot.hex(), seconds, record["host"], ",".join(record["tags"]))
    elif args[1] == "files":
        for path, node in repository.walk(choose(repository, args[2])["tree"]):
            if node["kind"] == 0:
                print(node["size"], urllib.parse.quote(path, safe="/"))
    elif len(args) == 5:
        with open(args[4], "wb") as out:
            extract(repository, args[2], args[3], out)
    else:
        extract(repository, args[2], args[3], sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Bad, OSError, ValueError) as error:
        sys.exit(f"reader: {error}")
