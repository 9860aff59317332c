"""Records to batches. The only package that imports tensorflow."""

import os

# TensorFlow only moves records here, so its remarks on the processor are noise; they are read when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
