"""Every command and snippet of the documentation is what it says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from otel_celery_memory.settings import unknown_variables
from tests.documentation import formats, shell
from tests.documentation.blocks import FILES, PAGES, ROOT, SITE, Block, blocks_of, spans_of

BLOCKS = [block for file in FILES for block in blocks_of(file)]
NOT_RUN: Mapping[str, int] = {
    "ARCHITECTURE.md": 2,
    "docs/site/ask-a-worker.md": 2,
    "docs/site/captures.md": 1,
    "docs/site/celery.md": 1,
    "docs/site/examples.md": 4,
    "docs/site/find-a-leak.md": 1,
    "docs/site/opentelemetry.md": 1,
    "docs/site/reference/events.md": 1,
    "docs/site/testing.md": 3,
}
"""How many blocks of each file are not checked. One more is a decision: it is made here, too."""
_OURS = re.compile(
    r"(otel-celery-memory|make|docker compose|python -m|kubectl \w+|celery (-A \S+ )?"
    r"(inspect|control|memory)) [\w-].*"
)
_SHORTENED = ("...", "…")
_TELEMETRY = re.compile(r"celery\.(?:task|worker|memory)\.[\w.]+\w")


def problems(block: Block, directory: Path, variables: dict[Path, set[str]]) -> Iterator[str]:
    """What is wrong with a block; `variables` has what earlier blocks of each page have set."""
    language = block.language
    if language in ("sh", "console"):
        # What is not of the site is read in one go less often.
        known = variables.setdefault(block.file, set()) if block.file in PAGES else None
        yield from shell.problems(block.text, known)
    elif language == "python":
        yield from formats.python_problems(block.text, directory)
    elif language == "yaml":
        yield from formats.yaml_problems(block.text)
    elif language == "ini":
        yield from formats.unit_problems(block.text)
    elif language == "promql":
        yield from formats.promql_problems(block.text)
    elif language == "diff" and block.file.name in ("CONTRIBUTING.md", "find-a-leak.md"):
        # Compared with the code by tests/unit/test_contributing.py, and applied by tests/view.
        return
    else:
        yield f"nobody knows how to check {language or 'a block without a language'!r}"


def test_every_block_is_right_or_says_why_it_is_not_checked(tmp_path: Path) -> None:
    variables: dict[Path, set[str]] = {}
    found = [
        f"{block}: {problem}"
        for block in BLOCKS
        if not block.reason
        for problem in problems(block, tmp_path, variables)
    ]
    assert found == []


def test_a_block_that_is_not_checked_is_a_decision() -> None:
    decided = Counter(str(block.file.relative_to(ROOT)) for block in BLOCKS if block.reason)
    assert decided == NOT_RUN


def test_the_blocks_are_found() -> None:
    fences = sum(
        len(re.findall(r"^ *```", file.read_text("utf-8"), re.MULTILINE)) for file in FILES
    )
    assert len(BLOCKS) == fences // 2
    assert {block.language for block in BLOCKS} >= {"sh", "python", "yaml", "promql", "ini", "diff"}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("sh", "celery -A shop inspect memroy"),
        ("sh", "celery -A shop control memory_capture 10 0.5 shop.refresh more"),
        ("sh", "celery -A shop memory vew"),
        ("sh", "celery -A shop worker --no-such-option"),
        ("sh", "otel-celery-memory view --prot 80"),
        ("sh", "kubectl exec -n x y -- otel-celery-memory chek"),
        ("sh", "kubectl get pod --wide"),
        ("sh", "make tets"),
        ("sh", "pip install '.[views]'"),
        ("sh", "python -m grafana --wirte"),
        ("sh", "python nowhere.py"),
        ("sh", "docker compose -f compose.yml up"),
        ("sh", "export OTEL_CELERY_MEMORY_SITES=1"),
        ("sh", "export OTEL_EXPORTER_OTLP_ENDPIONT=http://collector:4318"),
        ("sh", 'kill "$(pgrpe x)"'),
        ("sh", 'kill "$PDI"'),
        ("sh", "celery -A shop inspect memory | (tee"),
        ("python", "from otel_celery_memory import CeleryMemoryInstrumenter"),
        (
            "python",
            "from otel_celery_memory import CeleryMemoryInstrumentor as A\nA().instrument(site=1)",
        ),
        ("yaml", "scrape_configs:\n  - job_nam: collector"),
        ("yaml", "apiVersion: v1\nkind: Pod\nspec:\n  container: []"),
        ("ini", "[Service]\nUsers=shop"),
        ("promql", "celery_worker_memory_byte"),
        ("promql", "sum by (celery_slot) (celery_worker_memory_bytes)"),
        ("promql", "sum(celery_worker_memory_bytes"),
        ("text", "what a program said"),
        ("", "no language"),
    ],
)
def test_a_block_that_is_wrong_is_found(language: str, text: str, tmp_path: Path) -> None:
    block = Block(SITE / "index.md", 1, language, text, "")
    assert list(problems(block, tmp_path, {}))


@pytest.mark.parametrize("file", [ROOT / "README.md", *PAGES], ids=lambda file: file.name)
def test_commands_and_names_in_the_text_are_ours(file: Path) -> None:
    wrong = []
    for span in spans_of(file):
        if _OURS.fullmatch(span) and not span.endswith(_SHORTENED):
            wrong += list(shell.problems(span))
        if _TELEMETRY.fullmatch(span) and span not in formats.names_of_telemetry():
            wrong.append(f"nobody sends {span}")
        for name in re.findall(r"OTEL_CELERY_MEMORY_[A-Z_]+", span):
            wrong += list(unknown_variables({name: ""}))
    assert wrong == []


def test_the_table_of_a_worker_has_the_headings_that_the_code_has() -> None:
    code = (ROOT / "otel_celery_memory/worker/remote_control/commands.py").read_text("utf-8")
    shown = [block.text for block in blocks_of(SITE / "ask-a-worker.md") if block.reason]
    # A table begins after an empty line, or with the block, and is not one of sentences.
    tables = [
        part.splitlines()[0].split("  ")
        for text in shown
        for part in re.split(r"\n\s*\n", text)
        if len(part.splitlines()) > 1 and not part.startswith("->")
    ]
    headings = {word.strip() for table in tables for word in table if word.strip()}
    assert len(headings) > 25
    assert {each for each in headings if f'"{each}"' not in code} == set()
