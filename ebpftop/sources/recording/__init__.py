# SPDX-License-Identifier: Apache-2.0
"""Recordings: every tick of an instance in a file, and that file as a source."""

from ebpftop.sources.recording.frames import SCHEMA
from ebpftop.sources.recording.recorder import Recorder
from ebpftop.sources.recording.replaying import RecordingSource
from ebpftop.sources.recording.tape import Tape
from ebpftop.sources.recording.writing import FullError, TapeWriter

__all__ = ["SCHEMA", "FullError", "Recorder", "RecordingSource", "Tape", "TapeWriter"]
