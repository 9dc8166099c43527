"""A pickle interpreter that builds plain values and stand-ins, and imports nothing. Knows no file format of ours."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from utils.pickle_grammar import DICTS, FLOATS, OBJECTS, PERSISTENT, Grammar, Name, PickleError, StandIn

_LENGTHS = {1: struct.Struct("<B"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_INT32, _FLOAT = struct.Struct("<i"), struct.Struct(">d")
_MAX_NAME = 64
_MAX_INT_KEY = 1 << 32  # beyond it whole numbers can be made whose hashes collide


def run_pickle(content: bytes | memoryview, grammar: Grammar, start: int = 0) -> tuple[Any, int]:
    """Runs one pickle of protocol 2 to 5 (text opcodes, classes by name, sets and extension codes are refused).

    Time and memory are linear in the length of `content`: every length is compared with what is left before anything
    is copied, and dict keys are text, bytes, small whole numbers or stand-ins, which no file can make collide.

    Args:
        content: where the pickle lies.
        grammar: what it may hold.
        start: its first byte.

    Returns:
        The value, and the byte behind the pickle.

    Raises:
        PickleError: damage, or something that the grammar does not allow; nothing was run.
    """
    machine = _Machine(memoryview(content), grammar, start)
    try:
        return machine.run()
    except PickleError:
        raise
    except (IndexError, struct.error):
        machine.refuse("it ends early or takes values from an empty stack")
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:  # from a stand-in's checks
        machine.refuse(f"{type(error).__name__}: {error}")


class _Machine:
    def __init__(self, content: memoryview, grammar: Grammar, start: int) -> None:
        self.content, self.grammar, self.position = content, grammar, start
        self.opcode_at = start
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: list[Any] = []

    def run(self) -> tuple[Any, int]:
        """Obeys one opcode after the other up to the stop; the value, and the byte behind it.

        Raises:
            PickleError: an opcode that the grammar does not hold.
        """
        content, actions, extra = self.content, _ACTIONS, self.grammar.extra
        while True:
            self.opcode_at = self.position
            code = chr(content[self.position])
            self.position += 1
            if code == ".":
                return self.stack.pop(), self.position
            action = actions.get(code)
            if action is None or (code in _EXTRA and code not in extra):
                raise PickleError(
                    f"the pickle uses opcode {_opcode_name(code)} at byte {self.opcode_at}; {self.grammar.what} needs "
                    f"only {self.grammar.holds}, saved with pickle protocol 2 to 5"
                )
            action(self)

    def refuse(self, reason: str) -> NoReturn:
        raise PickleError(f"damaged pickle at byte {self.opcode_at}: {reason}")

    def take(self, length: int) -> memoryview:
        """The next `length` bytes, in place."""
        end = self.position + length
        if end > len(self.content):
            self.refuse(f"{length} bytes are announced, {len(self.content) - self.position} are left")
        taken = self.content[self.position : end]
        self.position = end
        return taken

    def number(self, size: int) -> int:
        return int(_LENGTHS[size].unpack(self.take(size))[0])

    def push_bytes(self, size: int) -> None:
        self.stack.append(bytes(self.take(self.number(size))))

    def push_text(self, size: int) -> None:
        self.stack.append(str(self.take(self.number(size)), "utf-8", "surrogatepass"))

    def pop_mark(self) -> list[Any]:
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def push_marked(self, kind: type) -> None:
        items = self.pop_mark()
        self.stack.append(kind(items))

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            self.refuse(f"something is appended to a {type(self.stack[-1]).__name__}")
        self.stack[-1] += items

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(items) % 2:
            self.refuse("items are set that are no pairs, or in no dict")
        for key in items[::2]:
            small = type(key) is int and abs(key) < _MAX_INT_KEY
            if not (small or key is None or isinstance(key, (str, bytes, bool, StandIn))):
                self.refuse(f"a dict key is a {type(key).__name__}; keys are text or small whole numbers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def pop_pair(self) -> list[Any]:
        value = self.stack.pop()
        return [self.stack.pop(), value]

    def push_global(self) -> None:
        """`module\\nname\\n`"""
        rest = bytes(self.content[self.position : self.position + 4 * _MAX_NAME])
        lines = rest.split(b"\n", 2)
        if len(lines) < 3:
            self.refuse("a global's name does not end")
        self.position += len(lines[0]) + len(lines[1]) + 2
        self.push_name(lines[0].decode("utf-8", "replace"), lines[1].decode("utf-8", "replace"))

    def push_stack_global(self) -> None:
        module, name = self.pop_pair()
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse("a global's name is no text")
        self.push_name(module, name)

    def push_name(self, module: str, name: str) -> None:
        if (module, name) not in self.grammar.calls and (module, name) not in self.grammar.values:
            shown = f"{module}.{name}"[:_MAX_NAME]
            raise PickleError(
                f"the pickle asks for {shown!r}; {self.grammar.what} may hold only {self.grammar.holds}. "
                "Nothing was run. Do not open this file with other tools"
            )
        self.stack.append(Name(module, name))

    def call(self) -> None:
        name, arguments = self.pop_pair()
        if type(name) is not Name or type(arguments) is not tuple or (name.module, name.name) not in self.grammar.calls:
            self.refuse("something is called that is no function")
        self.stack.append(self.grammar.calls[name.module, name.name](*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) is dict and type(state) is dict:
            return  # the attributes of an OrderedDict, which nobody asks for
        if not isinstance(self.stack[-1], StandIn):
            self.refuse(f"a {type(self.stack[-1]).__name__} is given a state")
        self.stack[-1].restore(state)

    def persistent(self) -> None:
        if self.grammar.persistent is None:
            self.refuse("a persistent id")
        self.stack.append(self.grammar.persistent(self.stack.pop()))

    def protocol(self) -> None:
        if self.number(1) > 5:
            self.refuse("a pickle protocol above 5")

    def frame(self) -> None:
        if self.number(8) > len(self.content) - self.position:
            self.refuse("a frame is announced that is longer than the file")

    def memoize(self, index: int) -> None:
        if index > self.opcode_at:  # sound pickles count from 0 or 1: the memo is never longer than the file
            self.refuse(f"memo index {index}")
        self.memo += [_UNSET] * (index + 1 - len(self.memo))
        self.memo[index] = self.stack[-1]

    def recall(self, size: int) -> None:
        index = self.number(size)
        if index >= len(self.memo) or self.memo[index] is _UNSET:
            self.refuse(f"memo {index} is used before it is set")
        self.stack.append(self.memo[index])


def _opcode_name(code: str) -> str:
    import pickletools  # slow to import, and needed for this one message

    known = pickletools.code2op.get(code)  # type: ignore[attr-defined]
    return str(known.name) if known else repr(code)


_UNSET = object()
_EXTRA = DICTS | FLOATS | OBJECTS | PERSISTENT
_ACTIONS: dict[str, Callable[[_Machine], Any]] = {
    "\x80": _Machine.protocol, "\x95": _Machine.frame, "(": _Machine.mark,
    "\x94": lambda m: m.memo.append(m.stack[-1]),
    "q": lambda m: m.memoize(m.number(1)), "r": lambda m: m.memoize(m.number(4)),
    "h": lambda m: m.recall(1), "j": lambda m: m.recall(4),
    "N": lambda m: m.stack.append(None),
    "\x88": lambda m: m.stack.append(True), "\x89": lambda m: m.stack.append(False),
    "J": lambda m: m.stack.append(_INT32.unpack(m.take(4))[0]),
    "K": lambda m: m.stack.append(m.number(1)),
    "M": lambda m: m.stack.append(int.from_bytes(m.take(2), "little")),
    "\x8a": lambda m: m.stack.append(int.from_bytes(m.take(m.number(1)), "little", signed=True)),
    "G": lambda m: m.stack.append(_FLOAT.unpack(m.take(8))[0]),
    "T": lambda m: m.push_bytes(4), "U": lambda m: m.push_bytes(1), "B": lambda m: m.push_bytes(4),
    "C": lambda m: m.push_bytes(1), "\x8e": lambda m: m.push_bytes(8),
    "\x96": lambda m: m.stack.append(bytearray(m.take(m.number(8)))),
    "X": lambda m: m.push_text(4), "\x8c": lambda m: m.push_text(1),
    "]": lambda m: m.stack.append([]), "l": lambda m: m.push_marked(list),
    "a": lambda m: m.append([m.stack.pop()]), "e": lambda m: m.append(m.pop_mark()),
    ")": lambda m: m.stack.append(()), "t": lambda m: m.push_marked(tuple),
    "\x85": lambda m: m.tuple_of(1), "\x86": lambda m: m.tuple_of(2), "\x87": lambda m: m.tuple_of(3),
    "}": lambda m: m.stack.append({}), "s": lambda m: m.set_items(m.pop_pair()),
    "u": lambda m: m.set_items(m.pop_mark()),
    "c": _Machine.push_global, "\x93": _Machine.push_stack_global,
    "R": _Machine.call, "\x81": _Machine.call, "b": _Machine.build, "Q": _Machine.persistent,
}  # fmt: skip
