"""The same targets and criteria, driven by atheris: inputs that reach new lines are kept. Only where it is installed.

`python -m tests.fuzz --engine atheris` starts it. atheris is no requirement of this project.
"""

from __future__ import annotations

import json
import os
import sys
import time
from random import Random

import atheris

with atheris.instrument_imports(include=["utils", "sources", "eval", "backbones"]):
    from tests.fuzz.child import TARGETS, options_of, quiet
    from tests.fuzz.guard import Guard
    from tests.fuzz.loop import Fuzzer


def main() -> None:
    """Fuzzes the one named target and writes result.json; libFuzzer ends the process."""
    options = options_of()
    quiet()
    name, scratch = options.names[0], options.scratch.resolve()
    os.chdir(scratch)
    (scratch / name).mkdir()
    fuzzer = Fuzzer(TARGETS[name], scratch / name, None, options.keep)
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(fuzzer.seeds):
        (corpus / str(number)).write_bytes(seed)
    fuzzer.guard = Guard(scratch, memory=4 << 30, cpu_seconds=int(min(options.seconds, 7200)) + 60)
    start = time.monotonic()

    def feed(data: bytes) -> None:
        fuzzer.feed(data)
        fuzzer.tally.seconds = time.monotonic() - start
        if fuzzer.tally.inputs >= options.inputs or fuzzer.tally.seconds > options.seconds:
            (options.keep / "result.json").write_text(json.dumps(fuzzer.tally.to_dict()))
            os._exit(0)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return fuzzer.damage(data, random)[:max_size]

    flags = ["-max_len=65536", "-rss_limit_mb=0", "-timeout=0", "-handle_alrm=0", f"-seed={options.seed + 1}"]
    atheris.Setup([sys.argv[0], *flags, "-verbosity=0", str(corpus)], feed, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
