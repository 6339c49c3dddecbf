"""Compares our chat templates with Jinja2: short snippets, and whole templates.

    python tools/reference/compare_templates.py [--templates FOLDER] [--snippets FILE] [--write FILE]

With --write, the snippets that agree go into FILE with their texts, which our tests read.

Every snippet of snippets.json and every *.jinja file in FOLDER is rendered with each conversation in conversations.py
that suits it. A difference is another text, or an error on one side only. Where Python raises an error of its own, such
as a TypeError, ours may be lenient and write a text; these are counted apart. What is listed in KNOWN does not count; a
listed one that agrees does.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import conversations
import templates

HERE = pathlib.Path(__file__).parent

# Snippets that differ, and why. docs/chat-templates.md lists them for users.
KNOWN = {
    "print-15": "keys 1 and true",
    "tojson-10": "keys 1 and true",
    "percent-6": "%r",
    "percent-14": "%d of a fraction",
    "method-21": "a method that is not called",
    "method-27": "encode",
    "method-28": "translate",
    "method-30": "bit_length",
    "filter-18": "wordwrap",
    "filter-19": "xmlattr",
    "filter-22": "random",
    "slice-8": "a fraction as index",
    "loop-10": "loop.last over a string",
    "loop-21": "a loop printed",
    "loop-22": "lipsum",
    "macro-4": "varargs",
    "macro-5": "a macro's attributes are lists",
    "macro-11": "a default that uses a parameter",
    "scope-9": "autoescape",
    "scope-10": "self",
    "scope-14": "self",
    "scope-15": "loop as a name",
    "source-5": "\\N{...}",
    "operator-8": "a tuple and a list are equal",
    "operator-16": "-true",
    "operator-25": "a string times a negative number",
    "esc_u_surr": "surrogates",
    # Markup: text that is marked safe escapes what is added to it.
    **{
        f"meetkai-functionary-medium-v3.1/{name}": "safe"
        for name in ("tools", "tools-no-system", "call", "call-answered", "call-text", "calls")
    },
}

# Errors of Python's that we do not insist on.
LENIENT = ("TypeError", "UndefinedError", "ZeroDivisionError")
LENIENT_MARK = "lenient"


def ours(program, cases):
    """Text or error of every case."""
    lines = [json.dumps({"template": source, "variables": variables}) for _, source, variables in cases]
    run = subprocess.run(program, input="\n".join(lines), capture_output=True, text=True, check=True)
    # Not splitlines: texts may hold other line breaks.
    results = [json.loads(line) for line in run.stdout.split("\n") if line]
    return [(None, r["error"]) if isinstance(r, dict) else (r, None) for r in results]


def difference(case, mine):
    """What differs, if anything does."""
    name, source, variables = case
    theirs, their_error = templates.render(source, variables)
    mine, my_error = mine
    if theirs == mine:
        return None
    if theirs is None and their_error.startswith(LENIENT):
        return LENIENT_MARK
    return f"{name}\n  Jinja2: {theirs!r} {their_error or ''}\n  sparse: {mine!r} {my_error or ''}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=pathlib.Path, help="folder of *.jinja files")
    parser.add_argument("--snippets", type=pathlib.Path, action="append", help="JSON object of templates by name")
    parser.add_argument("--write", type=pathlib.Path, help="file for the snippets that agree")
    args = parser.parse_args()

    cases = []
    for path in args.snippets or [HERE / "snippets.json"]:
        for name, source in json.loads(path.read_text()).items():
            cases.append((name, source, conversations.SNIPPETS))
    for path in sorted(args.templates.glob("*.jinja")) if args.templates else []:
        # Python's text mode would change line ends.
        source = path.read_bytes().decode()
        for name, variables in conversations.CONVERSATIONS.items():
            cases.append((f"{path.stem}/{name}", source, variables))
    program = ["cargo", "run", "--quiet", "--locked", "-p", "sparse-model", "--example", "render_templates"]
    found = [difference(case, mine) for case, mine in zip(cases, ours(program, cases), strict=True)]
    names = [name for name, _, _ in cases]
    lenient = found.count(LENIENT_MARK)
    differ = {name: text for name, text in zip(names, found) if text and text != LENIENT_MARK}
    if args.write:
        agree = {name: [source, templates.render(source, variables)[0]]
                 for (name, source, variables), text in zip(cases, found) if not text}
        content = {"variables": conversations.SNIPPETS, "snippets": agree}
        args.write.write_text(json.dumps(content, indent=0) + "\n")
    new = [text for name, text in differ.items() if name not in KNOWN]
    gone = [name for name in KNOWN if name in names and name not in differ]
    print(*new, sep="\n")
    for name in gone:
        print(f"{name} agrees now: take it out of KNOWN")
    print(f"{len(cases)} renderings: {len(differ)} differ, {len(differ) - len(new)} of them known; "
          f"{lenient} render where Python raises an error")
    sys.exit(bool(new or gone))


if __name__ == "__main__":
    main()
