"""What libvshadow and libfsntfs see of an NTFS volume with shadow copies.

  ntfs_shadow.py snapshots VOLUME   one line for each snapshot: a digest of its files, and one of every cluster
                                    that the snapshot's own $Bitmap calls used, but for the files in which the
                                    snapshots themselves are stored
  ntfs_shadow.py extend VOLUME      "offset length record" of the data of every file below $Extend
"""
import hashlib
import struct
import sys

import pyfsntfs
import pyvshadow

STORES = "{3808876b-c176-4e48-b7ae-04046e6cc752}"


def walk(entry, path=""):
    for i in range(entry.number_of_sub_file_entries):
        sub = entry.get_sub_file_entry(i)
        name = path + "/" + sub.name
        if sub.name == ".":
            continue
        if sub.has_directory_entries_index():
            if not sub.file_attribute_flags & 0x400:
                yield from walk(sub, name)
        else:
            yield name, sub


def extents(entry):
    return [(offset, size) for offset, size, _ in (entry.get_extent(i) for i in range(entry.number_of_extents))]


def file_digest(volume):
    digest, count = hashlib.sha256(), 0
    for name, entry in sorted(walk(volume.get_root_directory()), key=lambda pair: pair[0]):
        if name.startswith("/$") or name.endswith(STORES):
            continue
        entry.seek(0)
        digest.update(name.encode() + entry.read(entry.size))
        count += 1
    return count, digest.hexdigest()


def bitmap(store):
    """The snapshot's $Bitmap through its own boot sector and record 6."""
    def read(offset, size):
        store.seek(offset)
        return store.read(size)
    boot = read(0, 512)
    sector, per_cluster = struct.unpack_from("<HB", boot, 11)
    total, mft = struct.unpack_from("<QQ", boot, 40)
    cluster = sector * per_cluster
    record = bytearray(read(mft * cluster + 6 * 1024, 1024))
    array, count = struct.unpack_from("<HH", record, 4)
    for i in range(1, count):
        record[i * 512 - 2:i * 512] = record[array + 2 * i:array + 2 * i + 2]
    at = struct.unpack_from("<H", record, 20)[0]
    while struct.unpack_from("<I", record, at)[0] != 0x80:
        at += struct.unpack_from("<I", record, at + 4)[0]
    at += struct.unpack_from("<H", record, at + 32)[0]
    lcn, bits = 0, b""
    while record[at]:
        a, b = record[at] & 15, record[at] >> 4
        length = int.from_bytes(record[at + 1:at + 1 + a], "little")
        lcn += int.from_bytes(record[at + 1 + a:at + 1 + a + b], "little", signed=True)
        bits += read(lcn * cluster, length * cluster)
        at += 1 + a + b
    return cluster, total // per_cluster, bits


def used_digest(store, volume):
    cluster, clusters, bits = bitmap(store)
    stores = set()
    for name, entry in walk(volume.get_root_directory()):
        if name.endswith(STORES):
            for offset, size in extents(entry):
                stores.update(range(offset // cluster, (offset + size) // cluster))
    digest, count = hashlib.sha256(), 0
    for n in range(clusters):
        if bits[n >> 3] >> (n & 7) & 1 and n not in stores:
            store.seek(n * cluster)
            digest.update(store.read(cluster))
            count += 1
    return count, digest.hexdigest()


def main():
    what, path = sys.argv[1:]
    if what == "extend":
        volume = pyfsntfs.volume()
        volume.open(path)
        for name, entry in walk(volume.get_root_directory()):
            if name.startswith("/$Extend/"):
                for offset, size in extents(entry):
                    print(offset, size, entry.get_file_reference() & 0xFFFFFFFFFFFF)
        return
    shadows = pyvshadow.volume()
    shadows.open(path)
    for i in range(shadows.number_of_stores):
        store = shadows.get_store(i)
        volume = pyfsntfs.volume()
        volume.open_file_object(store)
        print(i, *file_digest(volume), *used_digest(store, volume))


main()
