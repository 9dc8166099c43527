"""MXNet's side of tests/mxnet_peer, a program of another Python, which has mxnet and numpy and nothing of ours.

Usage: PYTHON peer.py read FOLDER | write FOLDER | iterate FOLDER CLASSES | version

FOLDER/given holds one file per payload (KEY.payload) and labels.json, key -> label or list of labels. `write` makes
FOLDER/mxnet.rec and .idx of them; `read` reads FOLDER/ours.rec by its .idx and in file order and prints what it found;
`iterate` goes through train.rec with MXNet's own image iterator.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

if not hasattr(np, "bool"):  # mxnet 1.9.1 was written before numpy 1.24 took the name away
    np.bool = bool
import mxnet as mx


def header_of(key, label):
    vector = np.array(label, dtype=np.float32) if isinstance(label, list) else label
    return mx.recordio.IRHeader(0, vector, key, key * 7 % 1000)


def write(folder):
    labels = json.loads((folder / "given" / "labels.json").read_text())
    records = mx.recordio.MXIndexedRecordIO(str(folder / "mxnet.idx"), str(folder / "mxnet.rec"), "w")
    for key, label in labels.items():
        payload = (folder / "given" / (key + ".payload")).read_bytes()
        records.write_idx(int(key), mx.recordio.pack(header_of(int(key), label), payload))
    records.close()
    return {"records": len(labels)}


def told(item):
    header, payload = mx.recordio.unpack(item)
    label = header.label.tolist() if isinstance(header.label, np.ndarray) else header.label
    return [label, header.id, header.id2, hashlib.sha256(payload).hexdigest()]


def read(folder):
    records = mx.recordio.MXIndexedRecordIO(str(folder / "ours.idx"), str(folder / "ours.rec"), "r")
    by_key = {str(key): told(records.read_idx(key)) for key in records.keys}
    walked = mx.recordio.MXRecordIO(str(folder / "ours.rec"), "r")
    in_order = []
    while True:
        item = walked.read()
        if item is None:
            return {"by_key": by_key, "in_order": in_order}
        in_order.append(told(item)[1:])


def iterate(folder, classes):
    shape = {"path_imgrec": str(folder / "train.rec"), "data_shape": (3, 112, 112), "batch_size": 8}
    labels, sums = [], []
    for batch in mx.io.ImageRecordIter(shuffle=False, round_batch=False, preprocess_threads=1, **shape):
        labels += batch.label[0].asnumpy().tolist()  # the last batch is filled up, whatever its pad says
        sums += batch.data[0].asnumpy().mean(axis=(2, 3)).tolist()
    return {"labels": labels, "means": sums, "classes": classes}


if __name__ == "__main__":
    name, where = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if name == "version":
        print(json.dumps({"mxnet": mx.__version__, "numpy": np.__version__}))
    elif name == "iterate":
        print(json.dumps(iterate(where, int(sys.argv[3]))))
    else:
        print(json.dumps({"read": read, "write": write}[name](where)))
