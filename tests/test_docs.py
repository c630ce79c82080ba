"""The documents tell the truth: links, commands, flags, exit codes, code map, quick start."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "csrc/DESIGN.md",
    "tests/data/README.md",
)


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(document: str) -> Iterator[list[str]]:
    """Command lines of the sh blocks, continuation lines joined and comments dropped."""
    for block in blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert not missing


def test_commands_and_flags_in_the_readme_exist() -> None:
    checked = 0
    for words in commands("README.md"):
        if words[0] not in ("trtconvert", "visionrt"):
            continue
        shown = subprocess.run(
            [sys.executable, "-m", words[0], words[1], "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, words
        for flag in (w for w in words[2:] if w.startswith("-")):
            assert re.search(rf"(^|[\s,/]){re.escape(flag)}\b", shown.stdout), (words, flag)
        checked += 1
    assert checked >= 4


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in commands("README.md") if words[0] == "make"]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    from visionrt import errors

    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    listed = {int(n) for n in re.findall(r"(?:^|· ) *(\d+) \w", section.partition("##")[0], re.M)}
    raised = {kind.exit_code for kind in errors.VisionrtError.__subclasses__()}
    assert listed == raised | {0, 130}


def test_the_code_map_names_every_module() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = [
        path
        for folder in ("python/visionrt", "tools/trtconvert")
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    missing = [str(p.relative_to(ROOT)) for p in modules if f"`{p.name}`" not in text]
    assert not missing


def test_the_changelog_knows_the_version() -> None:
    from visionrt.version import __version__

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text or f"## [{__version__}]" in text


@pytest.mark.slow
def test_the_readme_s_build_and_first_python_block_work(tmp_path: Path) -> None:
    """The build command as written, then the three lines, which must name espresso."""
    build = next(w for w in commands("README.md") if w[:2] == ["trtconvert", "build"])
    for name in ("tests", "trtconvert"):
        source = ROOT / name
        if source.exists():
            (tmp_path / name).symlink_to(source)
    made = subprocess.run(
        [sys.executable, "-m", "trtconvert", *build[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    code = blocks("README.md", "python")[0]
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "espresso" in shown.stdout
