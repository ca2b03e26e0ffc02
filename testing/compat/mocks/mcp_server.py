"""A server of the Python MCP SDK, unmodified. Its port is the argument."""

import sys

from mcp.server import MCPServer

server = MCPServer("python", version="1")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("it went wrong")


server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
