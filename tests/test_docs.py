"""The documentation: its links and paths lead somewhere, and its pictures are what its scripts draw."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
import yaml
from PIL import Image

import fcn_jax
import fcn_jax.layers
from fcn_jax.cli import completion, main
from fcn_jax.cli.train import read_flags
from fcn_jax.errors import InputError

PROJECT = Path(__file__).parents[1]
PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "experiments/**/*.md")
    for page in PROJECT.glob(pattern)
)  # fmt: skip
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
NAMED_PATH = re.compile(r"(?<![\w./-])(?:fcn_jax|tests|benchmarks|experiments|docs)/[\w./-]*\w(?![\w*<{-])")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    lost = [link for link in LINK.findall(FENCED.sub("", text)) if not leads_somewhere(page, link)]
    lost += [path for path in NAMED_PATH.findall(text) if not (PROJECT / path).exists()]
    assert lost == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Return whether a link of a page leads to a file, or to a heading of a page; those to the web are not followed."""
    if re.match(r"https?:", link):
        return True
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", target.read_text()), re.MULTILINE) if heading else []
    return not heading or heading in map(to_anchor, headings)


def to_anchor(heading: str) -> str:
    """Return the name that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_a_lost_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, two: `three`\n```\n# no heading\n```\n")
    assert leads_somewhere(page, "#one-two-three")
    assert leads_somewhere(page, "page.md#one-two-three")
    assert not leads_somewhere(page, "#no-heading")
    assert not leads_somewhere(page, "other.md")
    assert NAMED_PATH.findall("`fcn_jax/fcn.py`, tests/data/. benchmarks/*.py docs/<name>") == [
        "fcn_jax/fcn.py",
        "tests/data",
    ]


@pytest.mark.slow
def test_the_drawings_of_upsampling_are_what_the_script_draws(tmp_path):
    """The same bytes, as far as matplotlib is the same: its releases write paths and fonts differently."""
    matplotlib = pytest.importorskip("matplotlib")
    kept = sorted((PROJECT / "docs" / "images").glob("*.svg"))
    drawn_by = {re.search(r"Matplotlib v([^,]+)", file.read_text())[1] for file in kept}
    if drawn_by != {matplotlib.__version__}:
        pytest.skip(f"docs/images was drawn by matplotlib {drawn_by}, here is {matplotlib.__version__}")
    script = shutil.copy(PROJECT / "docs" / "upsampling.py", tmp_path)
    env = os.environ | {"PYTHONPATH": str(PROJECT), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    subprocess.run([sys.executable, script], env=env, check=True)
    assert [file.name for file in kept] == sorted(file.name for file in (tmp_path / "images").iterdir())
    for file in kept:
        assert file.read_bytes() == (tmp_path / "images" / file.name).read_bytes(), file.name


def test_the_site_is_built_without_a_warning_and_has_every_public_name(tmp_path):
    """MkDocs checks links and headings; the names are those that `fcn_jax` and its layers export."""
    pytest.importorskip("mkdocstrings")
    env = os.environ | {"PYTHONPATH": str(PROJECT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    api = "".join(page.read_text() for page in (tmp_path / "docs" / "api").glob("*.html"))
    lost = [name for name in fcn_jax.layers.__all__ if not re.search(rf'id="fcn_jax\.layers\.\w+\.{name}"', api)]
    lost += [
        name for name in fcn_jax.__all__ if not re.search(rf'id="fcn_jax\.[\w.]+\.{name}"|<code>{name}</code>', api)
    ]
    assert lost == []
    for page in PAGES:
        if "docs" in page.parts[len(PROJECT.parts) :]:
            assert (tmp_path / page.relative_to(PROJECT)).with_suffix(".html").exists(), page


COMMANDS = {
    name if flags is group else f"{name} {inner}": flags
    for name, group in completion.COMMANDS.items()
    for inner, flags in (group.items() if isinstance(group, dict) else [("", group)])
}


def list_commands(text: str) -> list[list[str]]:
    """List the words after `fcn-jax` of the commands of a page, in its blocks and its sentences.

    `./launch.sh` is read as `fcn-jax train`. A command that is only named, without any words, is left out.
    """
    text = re.sub(r"\./launch\.sh (?!test\b)", "fcn-jax train ", text)
    for word, meaning in re.findall(r"`([A-Z]+)` stands for `([^`]+)`", text):
        text = re.sub(rf"\b{word}\b(?!` stands for)", meaning, text)
    blocks = "\n".join(re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    commands = []
    for line in [*blocks.splitlines(), *spans]:
        if not re.search(r"\bfcn-jax ", line):
            continue
        words = [
            word for word in shlex.split(line.replace('"', ""), comments=True) if not word.startswith(("[", "..."))
        ]
        command = words[words.index("fcn-jax") + 1 :] if "fcn-jax" in words else []
        if len(command) > (2 if command[:1] in (["data"], ["weights"]) else 1):
            commands.append(["fcn8s" if word in ("PRESET", "NAME") else word for word in command])
    return commands


def find_fault(command: list[str]) -> str:
    """Return what the program answers to flags that do not exist or have no value; nothing if it takes the command."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(shown):
        try:
            match command:
                case ["train", *flags]:
                    read_flags(flags)
                case ["data" | "weights" as group, name, *flags]:
                    tyro.cli(COMMANDS[f"{group} {name}"], args=flags)
                case [name, *flags]:
                    tyro.cli(COMMANDS[name], args=flags)
        except InputError as error:
            return f"{shlex.join(command)}: {error}"
        except SystemExit as end:
            return f"{shlex.join(command)}: {shown.getvalue()}" if end.code else ""
    return ""


def test_every_command_of_the_pages_is_one_that_the_program_takes():
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names commands of earlier releases
    commands = {tuple(command) for page in pages for command in list_commands(page.read_text())}
    assert len(commands) > 60
    assert [fault for command in sorted(commands) if (fault := find_fault(list(command)))] == []


def test_a_wrong_command_is_found():
    commands = list_commands(
        "`ROW` stands for `--seed 1`\n```bash\nA=1 ./launch.sh fcn8s \\\n  ROW  # as in fcn-jax eval\n```\n"
        "`fcn-jax data list`, and `fcn-jax predict\nRUN [RUN...] --tiles 3`\n"
    )
    assert commands == [["train", "fcn8s", "--seed", "1"], ["predict", "RUN", "--tiles", "3"]]
    assert find_fault(commands[0]) == ""
    assert "--tiles" in find_fault(commands[1])


def test_every_flag_of_the_pages_exists():
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        for command in ("train fcn8s", *COMMANDS):
            with contextlib.suppress(SystemExit):
                main([*command.split(), "--help"])
    known = set(re.findall(r"--[a-z][a-z.-]*[a-z]", shown.getvalue()))
    known |= {
        "--data-dir",
        "--rows",
        "--results",
        "--seeds",
        "--tpu",
        "--traffic",
        "--extrapolate",
        "--utilisation",
    }  # scripts of this project
    known |= {"--no-deps", "--cfg-options", "--resume", "--work-dir"}  # pip and MMSegmentation
    pages = {page for page in PAGES if page.parent.name == "docs"} - {PROJECT / "docs" / "clusters.md"}  # Slurm's flags
    for page in [PROJECT / "README.md", *pages]:
        named = re.findall(r"(?<![\w-])--(?!xla_|opt_)[a-z][a-z.-]*[a-z]", page.read_text())
        assert set(named) - known == set(), page


def test_no_line_of_a_sentence_begins_like_an_item_of_a_list():
    """The site shows a list where a sentence goes on with "0. The" in the next line."""
    for page in PAGES:
        numbers = re.findall(r"^( *)(\d+)\. ", FENCED.sub("", page.read_text()), re.MULTILINE)
        for before, (indent, number) in zip([None, *numbers], numbers, strict=False):
            assert int(number) == 1 or before == (indent, str(int(number) - 1)), f"{page}: {number}."


def read_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PROJECT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_code_of_the_page_on_own_networks_runs():
    names: dict = {}
    for block in read_blocks("docs/own-network.md", "python"):
        code = block.replace("model.init(", "jax.jit(model.init)(")  # eager calls take ten times as long
        code = code.replace("model.apply(variables, images)", "jax.jit(model.apply)(variables, images)")
        exec(compile(code, "own-network.md", "exec"), names)
    assert names["logits"].shape == (2, 75, 101, 7)
    (command,) = read_blocks("docs/own-network.md", "bash")
    preset, config, *_ = read_flags(shlex.split(command.replace("\\\n", " "))[2:])
    assert (preset, config.steps, len(config.optim.class_weights)) == ("fcn8s", 2000, 11)


def test_the_code_of_the_page_on_data_runs(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, places in (("depths", 40), ("rawDepths", 25)):
            values = np.linspace(1, 5, 2 * 40 * 30, dtype=np.float32).reshape(2, 40, 30)
            values[:, places:] = 0
            file[name] = values
    (tmp_path / "hha").mkdir()
    monkeypatch.chdir(tmp_path)
    (block,) = read_blocks("docs/data.md", "python")
    exec(compile(block, "data.md", "exec"), {})
    first, second = (np.asarray(Image.open(f"hha/img_{name}.png")) for name in (5001, 5002))
    assert first.shape == second.shape == (30, 40, 3)
    assert first[0, 0, 0] == 255  # 1 m
    assert second[-1, -1, 0] == 62  # 310 / 5 m
    assert (first[:, 30:, 2] == 218).all()


def test_scripts_of_the_page_on_clusters_are_correct_bash():
    scripts = read_blocks("docs/clusters.md", "bash")
    assert len(scripts) == 6
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_jobset_starts_as_many_pods_as_it_names_processes():
    (job_set,) = map(yaml.safe_load, read_blocks("docs/clusters.md", "yaml"))
    (replicated,) = job_set["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    shell, option, command = container["command"]
    assert (shell, option, job["completionMode"]) == ("/bin/sh", "-c", "Indexed")
    program, launcher, *words = shlex.split(command.replace("$JOB_COMPLETION_INDEX", "3"))
    assert (program, launcher) == ("exec", "./launch.sh")
    *_, cluster, _ = read_flags(words)
    assert (cluster.num_processes, cluster.process_id) == (job["parallelism"], 3)
    assert job["completions"] == job["parallelism"]
    # Names of pods in a JobSet: <set>-<job>-<number of the job>-<number of the pod>.<set>
    name = job_set["metadata"]["name"]
    assert cluster.coordinator.startswith(f"{name}-{replicated['name']}-0-0.{name}:")
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_container_file_names_what_is_there():
    (file,) = read_blocks("docs/clusters.md", "dockerfile")
    lines = [line.split(maxsplit=1) for line in file.splitlines()]
    assert [word for word, _ in lines] == ["FROM", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT", "CMD"]
    assert os.access(PROJECT / "launch.sh", os.X_OK)
    assert lines[0][1] == "python:3.12-slim"  # one of the versions that launch.sh takes
