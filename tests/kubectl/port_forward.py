"""Does what `kubectl port-forward` does for one pod, from a list of who listens where.

python port_forward.py POD=HOST:PORT,… -n NAMESPACE port-forward --address=127.0.0.1 pod/POD :7000
"""

from __future__ import annotations

import socket
import sys
import threading


def main() -> int:
    places = dict(place.split("=") for place in sys.argv[1].split(",") if place)
    assert sys.argv[2:6] == ["-n", "test", "port-forward", "--address=127.0.0.1"], sys.argv
    pod, port = sys.argv[6].removeprefix("pod/"), sys.argv[7]
    if pod not in places:
        print(f'Error from server (NotFound): pods "{pod}" not found', file=sys.stderr)
        return 1
    host, _, there = places[pod].rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()[1]
        print(f"Forwarding from 127.0.0.1:{here} -> {port.removeprefix(':')}", flush=True)
        while True:
            near, _ = server.accept()
            far = socket.create_connection((host, int(there)))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main())
