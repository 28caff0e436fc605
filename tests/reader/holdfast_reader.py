#!/usr/bin/env python3
"""Reads Holdfast repositories with nothing of Holdfast: written from proto/FORMAT.md alone, whose sections are cited as §.

    holdfast_reader.py list    KIT FOLDER               the backups in FOLDER (a provider, downloaded or mounted)
    holdfast_reader.py read    KIT FOLDER BACKUP [OUT]  verifies a backup; writes manifest.json and table-N.rows to OUT
    holdfast_reader.py vectors TESTDATA                 checks the vectors of proto/testdata/index.json

KIT is a recovery kit: the descriptor and at least one identity. Needs Python 3.9 or later, `cryptography`, and for zstd
the module `zstandard` or the program `zstd`. A part is held in memory. Not for every day: for the day on which nothing else is left.
"""

import datetime
import hashlib
import hmac
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CHUNK, TAG = 16384, 16
KINDS = {"part": 1, "manifest_page": 2, "manifest": 3, "segment": 4, "gap": 5, "head": 6, "report": 7, "index": 8}
OBJECT_MAX = (32 << 20) + (32 << 10) + (1 << 20) + (8 << 10)  # §1.3
# The y coordinates of the points of small order, canonical or not (§1.4).
P = 2**255 - 19
Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER = {0, 1, Y8, P - Y8, P - 1, P, P + 1}


class Refused(Exception):
    """An object, key or record that is not what it should be; `verdict` is the error of §3.5."""

    def __init__(self, verdict, why):
        super().__init__(verdict + ": " + why)
        self.verdict = verdict


def need(condition, verdict, why):
    if not condition:
        raise Refused(verdict, why)


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


def unhex(text, size):
    good = isinstance(text, str) and re.fullmatch("(?:[0-9a-f]{2}){%d}" % size, text)
    need(good, "corrupt", "not %d bytes of lowercase hexadecimal" % size)
    return bytes.fromhex(text)


def parse_json(data):
    def once(pairs):
        need(len(pairs) == len({name for name, _ in pairs}), "corrupt", "a field stands twice")
        return dict(pairs)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Refused("corrupt", "not JSON: %s" % error) from None
    need(isinstance(value, dict), "corrupt", "not a JSON object")
    return value


def record(data):
    """§5: a record, refused if it has critical fields; none is known to version 1."""
    value = parse_json(data)
    need(not value.get("crit"), "unknown_critical", "record field %r" % value.get("crit"))
    return value


# --- keys and trust (§4)
def key_line(kind, text):
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    need(len(lines) == 1 and lines[0].count(":") == 2, "corrupt", "expected one line " + kind)
    found, key, check = lines[0].split(":")
    need(found == kind, "corrupt", "this is not a " + kind)
    key = unhex(key, 32)
    need(unhex(check, 8) == sha256(kind.encode(), b":", key)[:8], "corrupt", kind + " is damaged")
    return key


def verify(public, message, signature):
    y = [int.from_bytes(point, "little") & (2**255 - 1) for point in (public, signature[:32])]
    need(SMALL_ORDER.isdisjoint(y), "bad_signature", "a point of small order")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refused("bad_signature", "the signature does not match") from None


def signed_record(domain, data, fields, root=None):
    """§4.3. A descriptor names the key that signed it; a certificate is signed by `root`."""
    need(len(data) <= 1 << 20, "too_large", "signed record")
    outer = parse_json(data)
    need(set(outer) == {"payload", "signature"}, "corrupt", "fields of a signed record")
    need(isinstance(outer["payload"], str), "corrupt", "payload of a signed record")
    value = parse_json(outer["payload"].encode())
    need(set(value) == set(fields), "corrupt", "fields of " + domain)
    root = root or key_line("holdfast-writer", value["root"])
    verify(root, domain.encode() + b"\0" + outer["payload"].encode(), unhex(outer["signature"], 64))
    return value


class Trust:
    """One repository, its root, and the writers that the root has certified: their keys and roles by key id."""

    def __init__(self, descriptor):
        value = signed_record("HF1 repository", descriptor, ["repository", "root", "recipients", "created_ms"])
        recipients = {key_line("holdfast-recipient", one["key"]) for one in value["recipients"]}
        need(2 <= len(recipients) <= 8 and len(recipients) == len(value["recipients"]), "corrupt", "recipients")
        self.repository = unhex(value["repository"], 16)
        self.root = key_line("holdfast-writer", value["root"])
        self.writers = {}

    def add(self, certificate):
        value = signed_record("HF1 certificate", certificate, ["repository", "role", "name", "key", "issued_ms"], self.root)
        need(unhex(value["repository"], 16) == self.repository, "foreign_repository", "certificate")
        need(value["role"] in ("agent", "verifier"), "corrupt", "role")
        key = key_line("holdfast-writer", value["key"])
        self.writers.setdefault(sha256(b"HF1 writer\0", key)[:8], (key, value["role"]))


def read_identity(text):
    """A private key with the id of its public half."""
    private = X25519PrivateKey.from_private_bytes(key_line("holdfast-identity", text))
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return sha256(b"HF1 recipient\0", public)[:8], private, public


# --- the container (§3)
class Input:
    def __init__(self, data, what):
        self.data, self.what, self.at = data, what, 0

    def take(self, size):
        need(self.at + size <= len(self.data), "truncated", self.what)
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]


def parse_core(data):
    core, field = Input(data, "core"), {}
    suite = core.number("H")
    need(suite == 1, "unknown_critical", "suite %d" % suite)
    field["repository"], field["chain"] = core.take(16), core.take(16)
    field["kind"] = core.number("B")
    need(field["kind"] in KINDS.values(), "unknown_critical", "kind %d" % field["kind"])
    field["sequence"] = core.number("Q")
    field["generation"], field["writer"] = core.take(16), core.take(8)
    field["created_ms"], field["previous"] = core.number("Q"), core.take(32)
    name_length = core.number("H")
    need(name_length <= 512, "too_large", "name")
    try:
        field["name"] = core.take(name_length).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("corrupt", "name is not UTF-8") from None
    field["codec"] = core.number("B")
    need(field["codec"] in (0, 1), "unknown_critical", "codec %d" % field["codec"])
    need(core.number("B") <= 23, "too_large", "window")
    field["plain"] = core.number("Q")
    need(field["plain"] <= 1 << 30, "too_large", "plaintext")
    last = -1
    while core.at < len(data):
        tag, value = core.number("H"), core.take(core.number("I"))
        need(tag > last, "corrupt", "fields are out of order")
        last = tag
        if tag == 0x8001:
            need(value, "corrupt", "an empty summary")
            field["summary"] = value
        else:
            need(not tag & 0x8000, "unknown_critical", "field %#06x" % tag)
    return field


def parse_header(data):
    head = Input(data, "header")
    magic = head.take(8)
    need(magic[:6] == b"HFOBJ\0", "not_ours", "magic")
    need(magic[6:] == b"\0\1", "unknown_version", str(int.from_bytes(magic[6:], "big")))
    core_length = head.number("I")
    need(core_length <= 1 << 20, "too_large", "core")
    field = parse_core(head.take(core_length))
    field["context"] = data[: head.at]
    count = head.number("B")
    need(2 <= count <= 8, "corrupt", "%d recipients" % count)
    field["recipients"] = []
    for _ in range(count):
        kem, recipient, enc_length = head.number("H"), head.take(8), head.number("H")
        need((kem, enc_length) == (0x20, 32), "unknown_critical", "key encapsulation")
        field["recipients"].append((recipient, head.take(32), head.take(48)))
    field["signed"] = data[: head.at]
    field["signature"] = head.take(64)
    field["end"] = head.at
    return field


def read_header(data, ask, trust):
    """Checks 1 to 14 of §3.5. `ask` has the name, kind and sequence, and perhaps the hash, that are wanted."""
    field = parse_header(data)
    need(field["repository"] == trust.repository, "foreign_repository", field["repository"].hex())
    key, role = trust.writers.get(field["writer"], (None, None))
    wanted = "verifier" if field["kind"] == KINDS["report"] else "agent"
    need(role == wanted, "unknown_writer", field["writer"].hex())
    verify(key, b"HF1 header\0" + field["signed"], field["signature"])
    same = field["name"] == ask["name"] and field["kind"] == KINDS[ask["kind"]]
    need(same and ask.get("sequence") in (None, field["sequence"]), "misplaced", field["name"])
    return field


def hpke_open(identity, enc, info, aad, sealed):
    """RFC 9180 §5.1.1 and §5.2, base mode: X25519 (0x0020), HKDF-SHA256 (0x0001), AES-256-GCM (0x0002), sequence 0."""

    def extract(suite, salt, label, ikm):
        return hmac.new(salt, b"HPKE-v1" + suite + label + ikm, "sha256").digest()

    def expand(suite, key, label, context, size):
        assert size <= 32, "one block of HKDF is all that is needed here"
        message = struct.pack(">H", size) + b"HPKE-v1" + suite + label + context
        return hmac.new(key, message + b"\x01", "sha256").digest()[:size]

    _, private, public = identity
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))  # refuses an all-zero result
    kem = b"KEM" + struct.pack(">H", 0x20)
    shared = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, 2)
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key, nonce = expand(suite, secret, b"key", context, 32), expand(suite, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed, aad)


def unwrap(field, identities):
    for identity in identities:
        for recipient, enc, sealed in field["recipients"]:
            if recipient == identity[0]:
                info = b"HF1 dek" + field["repository"]
                try:
                    return hpke_open(identity, enc, info, sha256(field["context"]), sealed)
                except (InvalidTag, ValueError):
                    raise Refused("key_mismatch", recipient.hex()) from None
    raise Refused("wrong_key", "needs " + " or ".join(r.hex() for r, _, _ in field["recipients"]))


def open_object(data, ask, trust, identities):
    """All of §3.5: the header's fields and the plaintext."""
    field = read_header(data, ask, trust)
    need(ask.get("hash") in (None, sha256(data).hex()), "corrupt", "SHA-256 of the object")
    need(len(data) <= OBJECT_MAX, "too_large", "object")
    key = unwrap(field, identities)
    body = Input(data, "payload")
    body.at = field["end"]
    salt, commitment = body.take(24), body.take(32)
    info = b"HF1 payload\0" + salt + sha256(field["context"])
    first = hmac.new(key, info + b"\x01", "sha512").digest()
    stream = first + hmac.new(key, first + info + b"\x02", "sha512").digest()
    need(hmac.compare_digest(stream[44:76], commitment), "corrupt", "commitment")
    cipher, base = AESGCM(stream[:32]), stream[32:44]
    chunks = data[body.at :]
    need(len(chunks) % (CHUNK + TAG) >= TAG, "truncated", "the last chunk is missing")
    plain = []
    for counter in range(-(-len(chunks) // (CHUNK + TAG))):
        nonce = base[:4] + (int.from_bytes(base[4:], "big") ^ counter).to_bytes(8, "big")
        start = counter * (CHUNK + TAG)
        try:
            plain.append(cipher.decrypt(nonce, chunks[start : start + CHUNK + TAG], None))
        except InvalidTag:
            raise Refused("corrupt", "chunk %d" % counter) from None
    payload = b"".join(plain)
    plain = one_frame(payload, field["plain"]) if field["codec"] == 1 else payload
    need(len(plain) == field["plain"], "corrupt", "the plaintext is not as long as the header says")
    return field, plain


def one_frame(data, limit):
    """§3.4: `data` must be exactly one zstd frame (RFC 8878 §3.1.1) with a small window. At most limit + 1 bytes of text."""
    frame = Input(data, "zstd frame")
    try:
        need(frame.number("I") == 0x28B52FFD, "corrupt", "not a zstd frame")
        flags = frame.number("B")
        single = flags & 0x20
        window = 0 if single else frame.number("B")
        frame.take((0, 1, 2, 4)[flags & 3])
        size = int.from_bytes(frame.take((1 if single else 0, 2, 4, 8)[flags >> 6]), "little")
        size += 256 if flags >> 6 == 1 else 0
        base = 1 << (10 + (window >> 3))
        need((size if single else base + base // 8 * (window & 7)) <= 1 << 23, "corrupt", "zstd window")
        need(not flags & 3, "corrupt", "a dictionary")
        last = False
        while not last:
            block = int.from_bytes(frame.take(3), "little")
            last = block & 1
            frame.take(1 if block >> 1 & 3 == 1 else block >> 3)
        frame.take(4 if flags & 4 else 0)
    except Refused as error:
        raise Refused("corrupt", str(error)) from None
    need(frame.at == len(data), "corrupt", "bytes behind the zstd frame")
    return decompress(data, limit + 1)


def decompress(data, limit):
    try:
        import zstandard
    except ImportError:
        if not shutil.which("zstd"):
            sys.exit("this needs the Python module zstandard or the program zstd")
        with tempfile.TemporaryFile() as source:
            source.write(data)
            source.seek(0)
            command = ["zstd", "-dcq", "--no-sparse"]
            with subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                text = process.stdout.read(limit)
                more = process.stdout.read(1)
                process.stdout.close()
            need(more or process.returncode == 0, "corrupt", "zstd")
            return text
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(data) as reader:
            return reader.read(limit)
    except zstandard.ZstdError as error:
        raise Refused("corrupt", "zstd: %s" % error) from None


# --- backups (§6)
ESCAPES = {b"\\\\": b"\\", b"\\t": b"\t", b"\\n": b"\n", b"\\r": b"\r", b"\\0": b"\0"}


def unescape(found):
    need(found.group() in ESCAPES, "corrupt", "an unknown escape in a cell")
    return ESCAPES[found.group()]


def row_digest(text, secret):
    """§6.3, of rows as they stand in parts (§6.2)."""
    need(not text or text.endswith(b"\n"), "corrupt", "the text ends within a row")
    rows, total = 0, 0
    for row in text.split(b"\n")[:-1]:
        canonical = [secret]
        for cell in row.split(b"\t"):
            if cell == b"\\N":
                canonical.append(b"\0")
                continue
            raw = re.sub(rb"\\.?", unescape, cell, flags=re.S)
            canonical.append(b"\x01" + struct.pack(">I", len(raw)) + raw)
        rows += 1
        total += int.from_bytes(sha256(*canonical), "little")
    return rows, total % 2**256


def parse_digest(text):
    rows, _, total = text.partition(":")
    return int(rows), int.from_bytes(unhex(total, 32), "little")


def add(one, other):
    return one[0] + other[0], (one[1] + other[1]) % 2**256


class Folder:
    """A repository in a folder, read with a kit."""

    def __init__(self, kit, path):
        self.path = path
        with open(os.path.join(kit, "repository.public"), "rb") as file:
            self.trust = Trust(file.read())
        self.identities = []
        for name in sorted(os.listdir(kit)):
            if name.endswith(".identity"):
                with open(os.path.join(kit, name), encoding="utf-8") as file:
                    self.identities.append(read_identity(file.read()))
        for name in sorted(os.listdir(os.path.join(path, "certificates"))):
            try:
                self.trust.add(self.read("certificates/" + name))
            except Refused as error:
                print("certificate %s is not believed: %s" % (name, error), file=sys.stderr)

    def read(self, name):
        with open(os.path.join(self.path, *name.split("/")), "rb") as file:
            return file.read(OBJECT_MAX + 1)

    def open(self, name, kind, sequence=None, expected=None):
        ask = {"name": name, "kind": kind, "sequence": sequence, "hash": expected}
        return open_object(self.read(name), ask, self.trust, self.identities)

    def manifests(self):
        """The names of all manifests, oldest day first."""
        found = []
        clusters = os.path.join(self.path, "clusters")
        for cluster in sorted(os.listdir(clusters)):
            top = os.path.join(clusters, cluster, "manifests")
            for day in sorted(os.listdir(top)) if os.path.isdir(top) else []:
                for backup in sorted(os.listdir(os.path.join(top, day))):
                    found.append("/".join(["clusters", cluster, "manifests", day, backup]))
        return sorted(found, key=lambda name: name.split("/")[3])

    def summary(self, name):
        ask = {"name": name, "kind": "manifest"}
        return record(read_header(self.read(name), ask, self.trust)["summary"])

    def manifest(self, name):
        """§6.1: verified, from its pages if it has some."""
        _, plain = self.open(name, "manifest")
        value = record(plain)
        if "pages" in value:
            pages = name.replace("/manifests/", "/pages/") + "/%016x"
            plain = b"".join(self.open(pages % i, "manifest_page", i, one)[1] for i, one in enumerate(value["pages"]))
            need(len(plain) == value["plain_bytes"], "corrupt", "length of the manifest")
            value = record(plain)
        need(value["backup"] == name.split("/")[-1], "corrupt", "the manifest is about another backup")
        need(value["recipe"] == "row-1", "unknown_critical", "digest recipe %r" % value["recipe"])
        tables = [(table["schema"], table["name"]) for table in value["tables"]]
        need(len(set(tables)) == len(tables), "corrupt", "a table stands twice")
        for table in value["tables"]:
            counts = {table[kind].split(":")[0] for kind in ("digest", "generated") if table.get(kind)}
            need(len(counts) == 1, "corrupt", "two digests of a table count other rows")
        numbers = [part["sequence"] for part in value["parts"]]
        need(len(set(numbers)) == len(numbers), "corrupt", "a part stands twice")
        return value

    def runs(self, name, manifest):
        """The text of each run of parts, with its table's index; its digests are checked."""
        secret, parts = unhex(manifest["secret"], 64), name.replace("/manifests/", "/parts/") + "/%016x"
        table, texts, wanted = None, [], (0, 0)
        for part in manifest["parts"]:
            need(table in (None, part["table"]), "corrupt", "a row goes on in another table")
            table = part["table"]
            texts.append(self.open(parts % part["sequence"], "part", part["sequence"], part["hash"])[1])
            need(len(texts[-1]) == part["plain_bytes"], "corrupt", "length of a part")
            wanted = add(wanted, parse_digest(part["digest"]))
            if not part.get("continues"):
                text = b"".join(texts)
                need(row_digest(text, secret) == wanted, "corrupt", "digest of part %d" % part["sequence"])
                yield table, text, wanted
                table, texts, wanted = None, [], (0, 0)
        need(table is None, "corrupt", "the last part ends within a row")


def read_backup(folder, name, out):
    manifest = folder.manifest(name)
    sums = [(0, 0)] * len(manifest["tables"])
    if out:
        os.makedirs(out)
        with open(os.path.join(out, "manifest.json"), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
    for table, text, digest in folder.runs(name, manifest):
        need(0 <= table < len(sums), "corrupt", "a part of no table")
        sums[table] = add(sums[table], digest)
        if out:
            with open(os.path.join(out, "table-%d.rows" % table), "ab") as file:
                file.write(text)
    for table, found in zip(manifest["tables"], sums):
        need(parse_digest(table["digest"]) == found, "corrupt", "digest of %(schema)s.%(name)s" % table)
        print("%s.%s: %d rows, digest equal" % (table["schema"], table["name"], found[0]))
    print("backup %s: %d tables, %d parts, all verified" % (manifest["backup"], len(sums), len(manifest["parts"])))


def list_backups(folder):
    for name in folder.manifests():
        summary = folder.summary(name)
        started = datetime.datetime.fromtimestamp(summary["started_ms"] // 1000, datetime.timezone.utc)
        place = summary["position"]
        print(name.split("/")[-1], started.isoformat(), summary["version"], "%s:%d" % (place["file"], place["offset"]))


# --- indexes (§7.4)
def index_records(segment, plain):
    """The transactions that end in a segment, checked against its summary."""
    lines = plain.split(b"\n")
    need(not lines.pop(), "truncated", "the last record of the index")
    end, found = 0, []
    for line in lines:
        need(len(line) < 8 << 20, "too_large", "index record")
        found.append(record(line))
        begin, before, end = found[-1]["begin"], end, found[-1]["end"]
        need(before <= begin < end and segment["start"] < end <= segment["end"], "corrupt", "not of the segment")
        times = segment["commit_us_min"], found[-1]["commit_us"], segment["commit_us_max"]
        need(times == tuple(sorted(times)), "corrupt", "not of the segment's time")
    need(len(found) == segment["transactions"], "corrupt", "number of transactions")
    need((end if found else None) == segment["boundary"], "corrupt", "end of the last transaction")
    return found


# --- the vectors (§9)
def verdict_of(check, *arguments):
    try:
        check(*arguments)
    except Refused as error:
        return error.verdict
    return "good"


def object_verdict(vector, data, trust, identities):
    """The verdict, and whether the header alone gave it."""
    verdict = verdict_of(read_header, data, vector["ask"], trust)
    if verdict != "good":
        return verdict, True

    def whole():
        field, plain = open_object(data, vector["ask"], trust, identities)
        if "summary" in field:
            record(field["summary"])
        if vector["ask"]["kind"] == "manifest":
            record(plain)
        if vector["ask"]["kind"] == "index":
            index_records(record(field["summary"]), plain)
        if vector["verdict"] == "good":
            need(hashlib.sha256(plain).hexdigest() == vector["plain_sha256"], "other_plaintext", "")

    return verdict_of(whole), False


def run_vectors(testdata):
    def read(*name):
        with open(os.path.join(testdata, *name), "rb") as file:
            return file.read()

    index = parse_json(read("index.json"))
    folder = Folder(os.path.join(testdata, "kit"), os.path.join(testdata, "repository"))
    homes = {"recovery": "kit", "verifier": "kit", "stranger": "stranger"}
    keys = {name: read_identity(read(home, name + ".identity").decode()) for name, home in homes.items()}
    results = []
    for vector in index["vectors"]:
        identities = [keys[name] for name in vector["identities"]]
        verdict, by_header = object_verdict(vector, read(vector["file"]), folder.trust, identities)
        expected_by_header = vector.get("stage") == "header"
        results.append((vector["file"], verdict, vector["verdict"], by_header == expected_by_header))
    for vector in index["records"]:
        check = Trust if vector["what"] == "descriptor" else Trust(read("kit", "repository.public")).add
        results.append((vector["file"], verdict_of(check, read(vector["file"])), vector["verdict"], True))
    for vector in index["key_lines"]:
        results.append((vector["text"], verdict_of(key_line, vector["kind"], vector["text"]), vector["verdict"], True))
    wrong = [result for result in results if result[1] != result[2] or not result[3]]
    for name, verdict, expected, stage in wrong:
        print("%s: %s, expected %s%s" % (name, verdict, expected, "" if stage else ", at another stage"))
    good = sum(expected == "good" for _, _, expected, _ in results)
    print("%d vectors, %d of them good, %d not as expected" % (len(results), good, len(wrong)))
    if wrong or not good or good == len(results):
        sys.exit(1)


def main(arguments):
    command, arguments = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "vectors" and len(arguments) == 1:
        run_vectors(arguments[0])
    elif command == "list" and len(arguments) == 2:
        list_backups(Folder(*arguments))
    elif command == "read" and len(arguments) in (3, 4):
        folder = Folder(*arguments[:2])
        names = [name for name in folder.manifests() if name.split("/")[-1].startswith(arguments[2])]
        if len(names) != 1:
            sys.exit("%d backups begin with %s" % (len(names), arguments[2]))
        read_backup(folder, names[0], arguments[3] if len(arguments) == 4 else None)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        sys.exit("refused: %s" % refused)
