//! Whether a server answers: one connection, one GET, one status line. 2xx and 3xx are good.

use crate::daemon::settings::HttpTarget;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;

/// What the server answers within the time that it has.
///
/// # Errors
/// The operating system's error, or that there was no answer of HTTP, or none in time.
pub(super) async fn status(target: &HttpTarget, limit: Duration) -> io::Result<StatusCode> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", limit.as_millis()));
    tokio::time::timeout(limit, ask(target)).await.map_err(late)?
}

/// Whether an answer of this status is good.
pub(super) fn is_good(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

async fn ask(target: &HttpTarget) -> io::Result<StatusCode> {
    let stream = TcpStream::connect(target.address).await?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(io::Error::other)?;
    let request = Request::get(&target.path)
        .header(header::HOST, target.address.to_string())
        .header(header::USER_AGENT, concat!("ssyncp/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    // Both in this future: when it is dropped, so is the connection, whatever the server still wants to say. A connection
    // may end before its answer is taken, which is there or an error all the same.
    let (mut response, mut connection, mut ended) = (pin!(sender.send_request(request)), pin!(connection), false);
    loop {
        tokio::select! {
            response = &mut response => return Ok(response.map_err(io::Error::other)?.status()),
            _ = &mut connection, if !ended => ended = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn answered(answer: &'static [u8]) -> (io::Result<StatusCode>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let target = HttpTarget::parse(&format!("http://127.0.0.1:{port}/healthz?deep=1")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(status(&target, Duration::from_secs(60)));
        (status, server.join().unwrap().replace(&port.to_string(), "PORT"))
    }

    #[test]
    fn the_status_of_the_answer_counts_and_its_body_is_not_read() {
        let (status, asked) = answered(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(status.unwrap(), 204);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            asked,
            format!(
                "GET /healthz?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:PORT\r\nuser-agent: ssyncp/{version}\r\n\
                 connection: close\r\n\r\n"
            )
        );
        assert_eq!(answered(b"HTTP/1.1 503 Busy\r\ncontent-length: 1000000\r\n\r\nx").0.unwrap(), 503);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(answered(b"SSH-2.0-x\r\n").0.is_err());
        assert!(answered(b"").0.is_err());
    }

    #[test]
    fn two_and_three_hundred_are_good() {
        let good = |status| is_good(StatusCode::from_u16(status).unwrap());
        assert_eq!([199, 200, 299, 300, 399, 400, 500].map(good), [false, true, true, true, true, false, false]);
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = HttpTarget::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(status(&target, Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 50 ms");
    }
}
