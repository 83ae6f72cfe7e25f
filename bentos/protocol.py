"""What both services share of Label Studio's ML backend protocol: events, and errors as clear answers."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from pipelines.errors import DataError, MaskloopError


def backend_app(title: str) -> FastAPI:
    """Make an app that accepts Label Studio's events and answers Maskloop's errors with their message.

    Unusable input is HTTP 400; what lies with another server is HTTP 502.
    """
    app = FastAPI(title=title)

    @app.post("/webhook")
    def webhook() -> dict[str, str]:
        """Accept events; stations read the state of the stores themselves."""
        return {"status": "ok"}

    @app.exception_handler(MaskloopError)
    def explain(request: Request, error: MaskloopError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400 if isinstance(error, DataError) else 502)

    return app
