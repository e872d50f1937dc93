"""`asynctrack doctor`: checks that what asynctrack needs works on this machine, and measures what it costs here."""

from __future__ import annotations

import argparse

import msgspec

from asynctrack.cli import options, output
from asynctrack.cli.diagnostics import Finding, diagnose
from asynctrack.cli.output import Output, Styled

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_dir(parser, "directory for runs, whose disk is checked")
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Run all checks. Return 1 if something does not work."""
    out, findings = Output(), []
    for finding in diagnose(args.dir):
        findings.append(finding)
        if not args.json:
            _print(out, finding)
    failed = any(finding.status == "error" for finding in findings)
    if args.json:
        output.print_json({"works": not failed, "findings": msgspec.to_builtins(findings)})
    return 1 if failed else 0


def _print(out: Output, finding: Finding) -> None:
    out.line(Styled(f"{finding.status:<8}", _STYLES[finding.status]), f"{finding.check:<14} ", finding.message)
