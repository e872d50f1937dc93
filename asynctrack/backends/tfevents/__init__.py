"""Event files, as TensorBoard reads them.

`messages` packs protobuf, `crc32c` computes checksums; `events` turns records into events, `histogram`, `pictures` and
`hparams` build their parts; `file` writes each event once; `server` runs the real TensorBoard in a process of its own.
"""
