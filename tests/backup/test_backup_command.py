"""`lineside backup` and `lineside restore`, as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edge.config import Config
from edge.journal import verify_journal
from tests.backup.conftest import Made


def lineside(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_box_is_backed_up_tried_and_restored(box: Config, spare: Config, tmp_path: Path) -> None:
    out = tmp_path / "box.tar"
    made = lineside("backup", out, "--box", box.folder, "--json")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts["ok"]
    assert facts["box"] == "BOX-T"
    assert (facts["files"], facts["values"]) == (5, True)  # journal, vault, process values, plant, recipe
    again = lineside("backup", out, "--box", box.folder)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("backup.exists: ")

    tried = lineside("restore", out, spare.folder, "--drill", "--json")
    assert tried.returncode == 0, tried.stderr
    assert json.loads(tried.stdout)["head_hash"] == facts["head_hash"]
    assert json.loads(tried.stdout)["new_epoch"] != facts["epoch"]
    assert not spare.state_dir.exists(), "a drill puts nothing in place"

    done = lineside("restore", out, spare.folder)
    assert done.returncode == 0, done.stderr
    assert f"row {facts['head_seq']}, {facts['head_hash']}" in done.stdout
    assert "supervisor" in done.stdout
    assert verify_journal(spare.state_dir / "journal.db").head_hash == facts["head_hash"]
    assert lineside("restore", out, spare.folder).stderr.startswith("backup.state_not_empty: ")


def test_a_backup_of_another_box_needs_its_key(made: Made, spare: Config, tmp_path: Path) -> None:
    original = (spare.folder / "device.pub").read_text()
    (tmp_path / "original.pub").write_text(original)
    (spare.folder / "device.pub").write_text("ab" * 32 + "\n")
    refused = lineside("restore", made.backup, spare.folder)
    assert refused.returncode == 2
    assert refused.stderr.startswith("backup.signature: ")
    assert "--key" in refused.stderr
    done = lineside("restore", made.backup, spare.folder, "--key", tmp_path / "original.pub", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == str(spare.state_dir)
