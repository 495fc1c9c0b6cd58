"""A Flask application: its session is a cookie, its counter is the module's."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, Response, jsonify, redirect, request, session, url_for

served = 0
app = Flask(__name__)
app.secret_key = "of the test"


def create_app(greeting: str = "hi") -> Flask:
    app.config["GREETING"] = greeting
    return app


@app.before_request
def count() -> None:
    global served
    served += 1


@app.get("/")
def hello() -> str:
    return f"{app.config.get('GREETING', 'hello')} {served}"


@app.get("/cart")
def cart() -> Response:
    session["things"] = session.get("things", 0) + 1
    return jsonify(things=session["things"], served=served)


@app.post("/upload")
def upload() -> Response:
    file = request.files["file"]
    return jsonify(name=file.filename, size=len(file.read()), served=served)


@app.get("/away")
def away() -> Response:
    return redirect(url_for("hello"))  # type: ignore[return-value]


@app.get("/stream")
def stream() -> Response:
    def items() -> Iterator[str]:
        yield from (f"{i}\n" for i in range(3))

    return Response(items(), mimetype="text/plain")


@app.get("/fails")
def fails() -> str:
    raise LookupError("in Flask")
