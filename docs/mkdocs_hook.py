"""Hook of MkDocs: the pages of the site are the project's files at their places in the repository."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[1]
# Pages, their pictures, and the files that they link to.
PATTERNS = (
    "*.md", "LICENSE", "docs/**/*", "experiments/**/*", "benchmarks/*", "fcn_jax/**/*.py", "tests/**/*.py",
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of `docs_dir` by those of the repository that the pages need; keep those of the theme."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    found = sorted({path for pattern in PATTERNS for path in PROJECT.glob(pattern) if path.is_file()})
    own = [
        File(path.relative_to(PROJECT).as_posix(), str(PROJECT), config.site_dir, config.use_directory_urls)
        for path in found
        if "__pycache__" not in path.parts
    ]
    return Files([*kept, *own])
