//! Benchmark peer: hyper 1 on tokio's multi-threaded runtime, one process per request.
//!
//!     bench-rust-peer --port PORT [--stderr inherit|pipe] -- CMD ARG...
//!
//! `--stderr inherit` (the default) opens one pipe per child, for stdout, as every other row
//! does. `--stderr pipe` is `Command::output()` as it is usually written: it makes and reads a
//! second pipe. The child inherits this server's stdin.

use std::convert::Infallible;
use std::io;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::process::Command;

struct Options {
    port: u16,
    pipe_stderr: bool,
    argv: Vec<String>,
}

fn parse_options() -> Result<Options, String> {
    let mut args = std::env::args().skip(1);
    let mut options = Options {
        port: 0,
        pipe_stderr: false,
        argv: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--port" => {
                let value = args.next().ok_or("--port needs a value")?;
                options.port = value.parse().map_err(|_| format!("not a port: {value}"))?;
            }
            "--stderr" => match args.next().as_deref() {
                Some("inherit") => options.pipe_stderr = false,
                Some("pipe") => options.pipe_stderr = true,
                _ => return Err("--stderr is inherit or pipe".into()),
            },
            "--" => options.argv = args.by_ref().collect(),
            _ => return Err(format!("unknown argument: {arg}")),
        }
    }
    if options.argv.is_empty() {
        return Err("no command given after --".into());
    }
    Ok(options)
}

async fn handle(
    _request: Request<Incoming>,
    options: Arc<Options>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut command = Command::new(&options.argv[0]);
    command.args(&options.argv[1..]);
    let output = if options.pipe_stderr {
        command.output().await
    } else {
        async {
            command
                .stdout(Stdio::piped())
                .spawn()?
                .wait_with_output()
                .await
        }
        .await
    };
    let (status, body) = match output {
        Ok(output) if output.status.success() => (StatusCode::OK, Bytes::from(output.stdout)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}

#[tokio::main]
async fn serve(options: Arc<Options>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let options = options.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(request, options.clone()));
            // A client that hangs up ends its own connection and nothing else.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn main() -> ExitCode {
    let result =
        parse_options().and_then(|options| serve(Arc::new(options)).map_err(|e| e.to_string()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bench-rust-peer: {message}");
            ExitCode::from(2)
        }
    }
}
