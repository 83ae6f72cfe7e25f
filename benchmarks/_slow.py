"""A way to a server that takes longer: `python -m benchmarks._slow PORT SERVER_PORT MILLISECONDS`, on loopback.

Each piece that a client sends is passed on after a pause; a request without a large body is one piece.
"""

import asyncio
import sys
from functools import partial


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause_s: float) -> None:
    try:
        while data := await reader.read(1 << 16):
            if pause_s:
                await asyncio.sleep(pause_s)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # one end hung up; the other is closed below
    finally:
        writer.close()


async def _connected(
    server_port: int, pause_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
    await asyncio.gather(_pass_on(reader, server_writer, pause_s), _pass_on(server_reader, writer, 0))


async def _serve(port: int, server_port: int, pause_s: float) -> None:
    server = await asyncio.start_server(partial(_connected, server_port, pause_s), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000))
