"""MXNet's RecordIO without MXNet: format, reader, writer."""

from marginface.data.formats.recordio.reader import RecordIODataset
from marginface.data.formats.recordio.writer import write_recordio

__all__ = ["RecordIODataset", "write_recordio"]
