"""Compares examples/python/rings.py with docs/vectors. Prints what differs, and nothing if all is as it should be."""

import json
import pathlib
import sys

root = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(root / "examples/python"))
sys.dont_write_bytecode = True
from rings import Layout, Rings, Violation, must_ring  # noqa: E402


def vectors(name):
    return json.loads((root / "docs/vectors" / name).read_text())


def number(value):
    return int(value, 16) if isinstance(value, str) else value


def section(parts, size):
    content = bytearray(size)
    for part in parts:
        data, at = bytes.fromhex(part["bytes"]), number(part["offset"])
        content[at : at + len(data)] = data
    return content


def check(name, found, expected):
    global checked
    checked += 1
    if found != expected:
        print(f"{name}: {found!r}, expected {expected!r}")


checked = 0
for case in vectors("event-index.json")["decisions"]:
    check(f"ring {case}", must_ring(number(case["old"]), number(case["new"]), number(case["event"])), case["ring"])

ring_layout = vectors("ring-layout.json")
for case in ring_layout["layouts"]:
    layout = Layout(number(case["section"]))
    found = [layout.n, layout.avail, layout.used, layout.vrsize]
    names = ["n", "avail", "used", "vrsize"]
    check(f"layout {case['section']}", found, [number(case[name]) for name in names])

for case in ring_layout["tooSmall"]:
    try:
        found = Layout(number(case)).n
    except ValueError:
        found = None
    check(f"layout {case}", found, None)

rings = vectors("rings.json")
size = number(rings["section"])
layout = Layout(size)


def pair(peer_parts):
    own = bytearray(size)
    made = Rings(memoryview(own), memoryview(section(peer_parts, size)).toreadonly(), layout, size)
    made.initialise()
    return own, made


def violation_of(action):
    try:
        return action()
    except Violation as violation:
        return str(violation)


for case in rings["exchanges"]:
    own, receiver = pair(case["sender"])
    frames = []
    while (frame := receiver.receive()) is not None:
        frames.append(frame.hex())
    receiver.flush()
    check(f"{case['name']}: may sleep", receiver.may_sleep(for_room=False), True)
    check(f"{case['name']}: frames", frames, case["frames"])
    check(f"{case['name']}: receiver", own.hex(), section(case["receiver"], size).hex())
    if not case["receiveOnly"]:
        own, sender = pair([])
        check(f"{case['name']}: sent", [sender.send(bytes.fromhex(each)) for each in case["frames"]], [True] * len(frames))
        sender.flush()
        for part in case["pinned"]:
            at, data = number(part["offset"]), bytes.fromhex(part["bytes"])
            check(f"{case['name']}: {part['what']}", own[at : at + len(data)].hex(), data.hex())

for case in rings["refusedByReceiver"]:
    _, receiver = pair(case["sender"])
    taken = [violation_of(receiver.receive) for _ in range(case["taken"] + 1)]
    check(case["name"], taken[-1], case["violation"])

for case in rings["refusedBySender"]:
    _, sender = pair(case["receiver"])
    for _ in range(case["sent"]):
        sender.send(bytes(14))
    sender.flush()
    check(case["name"], violation_of(sender.reclaim), case["violation"])

if checked < 198:
    print(f"only {checked} comparisons")
