"""Event files, as TensorBoard reads them.

`messages` packs protobuf, `crc32c` sums it up; `events` makes events of records, `histogram` and `hparams` what goes into them; `file` has each of them
in a file once; `server` is the real TensorBoard in a process of its own.
"""
