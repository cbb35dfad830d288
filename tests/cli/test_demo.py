"""`fcn-jax demo` before it has a page; tests/inference/demo looks at the page."""

import subprocess
import sys

# As on a machine without these packages: their import fails.
WITHOUT = "import sys; sys.modules['gradio'] = None; from fcn_jax.cli import main; main(sys.argv[1:])"


def test_gradio_is_asked_for(tmp_path):
    words = [sys.executable, "-c", WITHOUT, "demo", str(tmp_path), "--port", "0"]
    process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert process.returncode == 2
    assert process.stderr == "loading gradio\nfcn-jax: the page needs the package gradio: pip install 'fcn-jax[demo]'\n"
