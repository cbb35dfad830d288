"""The tests that `./launch.sh test -m smoke` runs: less than a minute, for every change, something of every wing."""

import pytest

# Whole files, or single tests as FILE::NAME with all their parameters. Those marked slow are left out.
SMOKE = (
    "test_config.py",
    "test_contracts.py",
    "test_docs.py",
    "test_launch.py",
    "test_presets.py",
    "test_public_names.py",
    "layers/test_backend.py",
    "layers/test_channel_sums.py",
    "layers/test_sizes.py",
    "layers/test_standalone.py",
    "runtime/test_download.py",
    "runtime/test_files.py",
    "runtime/test_json_values.py",
    "runtime/test_memory.py",
    "runtime/test_threads.py",
    "data/test_checks.py",
    "data/test_dataset.py",
    "data/test_defaults.py",
    "data/test_entries.py",
    "data/test_labels.py",
    "data/test_augment.py::test_image_and_label_move_together",
    "data/sources/test_camvid.py",
    "data/sources/test_folder.py",
    "data/sources/test_listing.py",
    "data/sources/test_sources.py",
    "data/sources/test_voc.py",
    "weights/test_classes.py",
    "weights/test_imagenet.py",
    "weights/test_merge.py",
    "weights/test_ours.py",
    "weights/test_safetensors_file.py",
    "models/test_build.py",
    "models/test_fcn.py::test_parameter_counts_are_the_published_ones",
    "models/test_fcn.py::test_the_first_scores_are_zero_and_the_first_upsampling_bilinear",
    "models/test_losses.py::test_equals_the_definition",
    "runs/test_run_dir.py",
    "inference/test_metrics.py",
    "training/test_step.py::test_the_loss_falls_and_one_program_does_all_steps",
)


def is_smoke(item: pytest.Item) -> bool:
    file, *names = item.nodeid.removeprefix("tests/").split("::")
    name = names[-1].split("[")[0]
    return item.get_closest_marker("slow") is None and (file in SMOKE or f"{file}::{name}" in SMOKE)
