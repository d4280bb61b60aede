# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point: lazy, and with an exit status of its own for wrong usage."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from diting import __version__
from diting.cli import main as cli


def install(monkeypatch, func):
    """A made-up subcommand "gate"."""
    module = types.ModuleType("diting.cli.gate")

    def add_parser(sub):
        parser = sub.add_parser("gate")
        parser.add_argument("word", nargs="?")
        parser.set_defaults(func=func)

    module.add_parser = add_parser
    monkeypatch.setitem(sys.modules, "diting.cli.gate", module)


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["--nonsense"]])
def test_wrong_usage_is_64_and_never_a_verdict(argv, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 64
    assert "usage: diting" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"diting {__version__}\n"


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (2, 2), (True, 1)])
def test_exit_status_is_what_the_command_returns(monkeypatch, returned, status):
    install(monkeypatch, lambda args: returned)
    assert cli.main(["gate", "x"]) == status


def test_a_command_whose_dependency_is_missing_says_so_and_leaves_the_others_alone(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diting.cli.ledger", None)
    assert cli.main(["ledger", "run"]) == 64
    assert "not available on this host" in capsys.readouterr().err
    install(monkeypatch, lambda args: 0)
    assert cli.main(["gate"]) == 0


def test_ctrl_c_is_130(monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    install(monkeypatch, interrupted)
    assert cli.main(["gate"]) == 130


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_a_module_that_helps(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: diting {name}")


def test_one_command_does_not_import_the_others():
    """A prober that takes a second to start because of the report's templates would be late."""
    code = (
        "import sys\nfrom diting.cli.main import build_parser\nbuild_parser('gate')\n"
        "print(sorted({'psycopg', 'jinja2', 'jsonschema', 'ansible'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reader_that_leaves_early_is_no_traceback():
    code = "import sys\nfrom diting.cli.main import main\nsys.exit(main())"
    shell = f'{sys.executable} -c "{code}" drill --help | true'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
