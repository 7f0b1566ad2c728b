"""MXNet's RecordIO without MXNet: format, reader, writer."""
