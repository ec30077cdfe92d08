"""A client for what no load generator does: full TLS handshakes with SNI, and idle connections held open.

connections.py handshakes PORT CA SECONDS  makes new TLS connections one after another, prints how many
connections.py hold PORT CA COUNT          opens COUNT TLS connections (CA `-`: plain ones), sends one request over
                                           each, prints `ready`, and holds them until its input ends
"""
import resource
import socket
import ssl
import sys
import time

REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY_BYTES = 1024


def tls_context(ca):
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def connect(port, context):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    # The request must not wait until the end of the handshake is acknowledged.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A context makes a new session each time, so every handshake is a full one.
    return context.wrap_socket(connection, server_hostname="localhost") if context else connection


def handshakes(port, ca, seconds):
    context = tls_context(ca)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        connection = connect(port, context)
        if connection.session_reused:
            sys.exit("a session was resumed")
        connection.close()
        count += 1
    print(count)


def request(connection):
    connection.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < BODY_BYTES:
        more = connection.recv(65536)
        if not more:
            sys.exit(f"the server closed after {answer[:200]!r}")
        answer += more
    if not answer.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"the server answered {answer[:200]!r}")


def hold(port, ca, count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = None if ca == "-" else tls_context(ca)
    connections = []
    for _ in range(count):
        connections.append(connect(port, context))
        request(connections[-1])
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    verb, port, ca, number = sys.argv[1:]
    {"handshakes": handshakes, "hold": hold}[verb](int(port), ca, int(number))
