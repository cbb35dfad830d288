"""`fcn-jax report`."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import find_best

from fcn_jax.cli.other_data import OtherData
from fcn_jax.cli.report import Report, _collect
from fcn_jax.errors import InputError


@pytest.mark.slow
def test_runs_are_reported_side_by_side_whatever_is_left_of_them(place, undisturbed):
    """One whose data is gone, a staged one in its first steps, and a whole one."""
    folder, _ = undisturbed
    gone = place.root / "data-gone"
    shutil.copytree(folder, gone)
    config = gone / "config.json"
    config.write_text(config.read_text().replace(f"{place.root / 'data'}", f"{place.root / 'nowhere'}"))
    begun = place.root / "begun" / "fcn32s"
    begun.mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(folder / name, begun)
    output = place.run("report", folder.name, gone.name, "begun", "--out", "runs.html", "--no-explain")
    best = find_best(folder)
    score = f"{100 * best['mean_iu']:.1f}"
    assert f"undisturbed: mean IU {score} %" in output
    assert re.search(r"data-gone: The images of the run cannot be read, so .*nowhere does not exist", output)
    assert "begun/fcn32s: The run has no checkpoint yet" in output
    assert re.search(r"written: runs.html, 0.\d MB", output)
    page = (place.root / "runs.html").read_text()
    scores = re.findall(r'<tr><th scope="row"><a href="#run\d">([^<]*)</a></th>\s*<td class="num">([^<]*)</td>', page)
    assert scores == [("undisturbed", score), ("data-gone", score), ("begun/fcn32s", score)]
    assert f"step {best['step']}, 3 images of folder tiny" in page
    assert json.loads((folder / "config.json").read_text())["starts"][-1]["command"] in page
    assert page.count('alt="Wrong pixels of tiny') == 3
    assert not (folder / "report.html").exists()


def test_a_run_without_a_step_is_an_error(undisturbed, tmp_path):
    folder, _ = undisturbed
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} has neither checkpoints nor logged steps; report it once"):
        _collect(tmp_path, "begun", Report((tmp_path,)))


def test_data_that_were_asked_for_have_to_be_there(undisturbed):
    folder, _ = undisturbed
    with pytest.raises(InputError, match="nowhere does not exist"):
        _collect(folder, "run", Report((folder,), data=OtherData(dir=Path("nowhere"))))
    with pytest.raises(InputError, match="has no split 'test' here; it has train, tiny"):
        _collect(folder, "run", Report((folder,), split="test"))
