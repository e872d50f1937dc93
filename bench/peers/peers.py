"""The peers that are measured."""

from __future__ import annotations

from typing import Final

from bench.peers import counts, floors, trackers
from bench.peers.peer import SCALARS, Peer

_SQLITE: Final = f"{SCALARS}; a local SQLite store"

PEERS: Final = {
    peer.name: peer
    for peer in [
        Peer("nothing", floors.nothing, note="the floor: an empty call"),
        Peer("deque.append", floors.deque, note="the floor: kept in memory, written nowhere"),
        Peer("msgpack encode", floors.encode, packages=("msgspec",), note="the floor: encoded, written nowhere"),
        Peer("asynctrack", trackers.asynctrack(), counts.asynctrack, ("asynctrack",)),
        Peer("encode + os.write", floors.encode_and_write, counts.lines, ("msgspec",)),
        Peer("msgpack frame + os.write", floors.frame_and_write, counts.frames, ("msgspec",), "a frame that a full disk tears hides all behind it"),
        Peer("json, flush per step", floors.json_and_flush, counts.lines),
        Peer("logging, QueueHandler", floors.logging_queue, counts.lines),
        Peer("loguru, enqueue", floors.loguru, counts.lines, ("loguru",), most=20_000),
        Peer("wandb, offline", trackers.wandb("offline"), counts.wandb_file, ("wandb",), most=20_000),
        Peer(
            "wandb, online", trackers.wandb("online"), counts.wandb_server_or_file, ("wandb",),
            "found: rows at a small server on loopback, or in its own file for `wandb sync` where these are more; the server's processor time is not counted", 20_000,
            server="wandb", goes_on_s=20.0,
        ),
        Peer("trackio", trackers.trackio(), counts.trackio, ("trackio",)),
        Peer("tensorboard", trackers.tensorboard, counts.events, ("tensorboard",), SCALARS, 20_000),
        Peer("tensorboardX", trackers.tensorboardx, counts.events, ("tensorboardX",), SCALARS, 20_000),
        Peer("mlflow", trackers.mlflow(False), counts.mlflow, ("mlflow",), _SQLITE, 2_000),
        Peer("mlflow, asynchronous", trackers.mlflow(True), counts.mlflow, ("mlflow",), _SQLITE, 2_000),
        Peer("neptune-scale, offline", trackers.neptune, counts.neptune, ("neptune-scale",), SCALARS, 20_000),
        Peer("swanlab, offline", trackers.swanlab, counts.swanlab, ("swanlab",), SCALARS, 20_000),
        Peer("kohakuboard", trackers.kohakuboard, counts.kohakuboard, ("kohakuboard",), SCALARS),
        Peer("aim", trackers.aim, counts.aim, ("aim",), SCALARS, 10_000),
        Peer("dvclive", trackers.dvclive, counts.dvclive, ("dvclive",), SCALARS, 2_000),
        # Against a server that stops.
        Peer(
            "asynctrack to wandb", trackers.asynctrack(trackers.to_wandb), counts.wandb_server, ("asynctrack", "wandb"),
            server="wandb", of="asynctrack",
        ),
        Peer(
            "asynctrack to mlflow", trackers.asynctrack(trackers.to_mlflow), counts.mlflow_server, ("asynctrack", "mlflow"),
            server="mlflow", of="asynctrack",
        ),
        Peer("mlflow to its server", trackers.mlflow(False, True), counts.mlflow_server, ("mlflow",), server="mlflow", of="mlflow"),
        Peer(
            "mlflow, asynchronous, to its server", trackers.mlflow(True, True), counts.mlflow_server, ("mlflow",),
            server="mlflow", of="mlflow, asynchronous",
        ),
        Peer("trackio to its server", trackers.trackio(True), counts.trackio_server, ("trackio",), server="trackio", of="trackio"),
    ]
}  # fmt: skip
