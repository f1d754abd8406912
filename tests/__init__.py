"""Tests of dplq. Their files need not outlive a power cut, so that no test waits for the disk."""

import os

os.fsync = lambda file: None
