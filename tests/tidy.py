#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The mechanical part of the house style, as the test unit.tidy. Run it from anywhere: tests/tidy.py

* Includes in src/ point one way, along the lines sluice_library(...) of src/CMakeLists.txt.
* Every header has `#pragma once` and the licence line.
* No line over 120 columns, no tabs, no left-over markers, no file under src/ over 900 lines.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS_MAX = 120
SRC_LINES_MAX = 900
LICENCE = "// SPDX-License-Identifier: Apache-2.0"
MARKER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")  # in pieces: this file is checked too
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
LIBRARY = re.compile(r"^sluice_library\((\w+)(?:\s+DEPENDS((?:\s+\w+)*?))?(?:\s+THIRD_PARTY[^)]*)?\)", re.M)


def layers():
    """Folder of src/ -> the folders it may include from: itself and all it depends on, directly or not."""
    allowed = {}
    for name, depends in LIBRARY.findall((ROOT / "src/CMakeLists.txt").read_text()):
        allowed[name] = {name}
        for below in depends.split():
            allowed[name] |= allowed[below]  # KeyError: a library stands above one that it depends on
    return allowed


def checked_files():
    for folder in ("src", "include", "tests", "perf", "third_party", "cmake"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".h", ".cpp", ".py", ".cmake") or path.name == "CMakeLists.txt":
                yield path
    yield ROOT / "CMakeLists.txt"
    yield from (path for path in sorted((ROOT / "scripts").iterdir()) if path.is_file())


def problems_in(path, allowed):
    name = path.relative_to(ROOT)
    in_src = name.parts[0] == "src"
    is_code = path.suffix in (".h", ".cpp")
    lines = path.read_text(encoding="utf-8").split("\n")

    if path.suffix == ".h":
        if LICENCE not in lines[:3]:
            yield f"{name}:1: the line '{LICENCE}' is missing at the top"
        if "#pragma once" not in lines:
            yield f"{name}:1: '#pragma once' is missing"
    if in_src and len(lines) - 1 > SRC_LINES_MAX:
        yield f"{name}: {len(lines) - 1} lines; {SRC_LINES_MAX} is the most, a second subject has moved in"

    folder = name.parts[1] if in_src and len(name.parts) > 2 else None
    if folder and folder not in allowed:
        yield f"{name}: src/CMakeLists.txt has no sluice_library({folder})"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield f"{name}:{number}: {len(line)} columns; {COLUMNS_MAX} is the most"
        if "\t" in line:
            yield f"{name}:{number}: a tab"
        if found := MARKER.search(line):
            yield f"{name}:{number}: '{found[0]}': do it, or open an issue"
        if is_code and folder in allowed and (include := INCLUDE.match(line)):
            other = include[1].split("/")[0]
            if other not in allowed:
                yield f'{name}:{number}: "{include[1]}" is not a path from src/'
            elif other not in allowed[folder]:
                yield f"{name}:{number}: {folder} must not include from {other} (see src/CMakeLists.txt)"


def main():
    allowed = layers()
    problems = [problem for path in checked_files() for problem in problems_in(path, allowed)]
    print("\n".join(problems) or "tidy")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
