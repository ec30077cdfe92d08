"""Listens on a free port, or on the socket that is named; says where; ends with its input."""
import os, socket, sys, threading

where = sys.argv[1] if len(sys.argv) > 1 else ""
if where:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
    listener.listen()
    print(where)
else:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1])


def answer(connection):
    with connection:
        data = connection.recv(65536)
        if data.startswith(b"GET "):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            return
        while data:
            connection.sendall(data)
            data = connection.recv(65536)
        connection.sendall(b"!")


def accept():
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
sys.stdin.buffer.read()
os._exit(0)
