"""OpenCV's side of inference.py, with a module in OpenCV's place."""

import os
import sys

import inference
import numpy as np
from separate import Worker

CV2 = """
import time
class Net:
    def setInput(self, image, name):
        assert (image.shape, name) == ((1, 3, 4, 5), "data")
    def forward(self, name):
        assert name == "score"
        time.sleep(0.02)
class dnn:
    def readNetFromCaffe(text, weights):
        assert text.endswith("net.prototxt") and weights.endswith("net.caffemodel")
        return Net()
"""


def test_opencv_answers_as_a_worker(tmp_path):
    (tmp_path / "cv2.py").write_text(CV2)
    np.save(tmp_path / "image.npy", np.zeros((1, 3, 4, 5), np.float32))
    command = [sys.executable, "-c", inference.OPENCV, str(tmp_path)]
    with Worker(command, os.environ | {"PYTHONPATH": str(tmp_path)}) as worker:
        for calls in (1, 3):
            assert 0.02 <= worker.measure("score", calls) < 0.5
