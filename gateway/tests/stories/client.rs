//! An HTTP/1.1 client that sends exactly the bytes it is told to.

use std::{future::Future, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf,
        WriteHalf,
    },
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Longer than anything here takes unless it is broken.
const BOUND: Duration = Duration::from_secs(20);

/// Fails the test when `future` takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(BOUND, future).await else {
        panic!("still waiting for: {what}");
    };
    value
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    found(what, async || holds()).await;
}

/// Waits until what is looked for is found: the one place where the stories look again and again.
pub(crate) async fn found(what: &str, mut look: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The problem document, checked for what each must have.
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("/problems/{slug}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }
}

pub(crate) struct Client<R = OwnedReadHalf, W = OwnedWriteHalf> {
    reader: BufReader<R>,
    writer: W,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = soon("connect", TcpStream::connect(addr)).await.unwrap();
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }
}

/// A client over a stream of any kind.
pub(crate) fn over<S: AsyncRead + AsyncWrite>(stream: S) -> Client<ReadHalf<S>, WriteHalf<S>> {
    let (reader, writer) = tokio::io::split(stream);
    Client { reader: BufReader::new(reader), writer }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("send", self.writer.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The next answer to a request other than HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map_or(0, |v| v.parse().unwrap());
        let mut body = vec![0; length];
        soon("body", self.reader.read_exact(&mut body)).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Status and headers of the next answer.
    pub(crate) async fn head(&mut self) -> Answer {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status in `{status}`"));
        let mut answer =
            Answer { status: status.parse().unwrap(), headers: Vec::new(), body: String::new() };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { return answer };
            answer.headers.push((name.to_lowercase(), value.to_owned()));
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("line", self.reader.read_line(&mut line)).await.unwrap();
        assert!(line.ends_with('\n'), "the connection ended after `{line}`");
        line.trim_end().to_owned()
    }

    /// Waits until the server closes the connection, and says whether it had anything to say before.
    pub(crate) async fn closed(mut self) -> String {
        let mut rest = Vec::new();
        // A reset is also an end.
        let _ = soon("end of connection", self.reader.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, &[], "").await
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.send(request).await;
        self.answer().await
    }

    pub(crate) async fn post_json(&mut self, target: &str, body: &str) -> Answer {
        self.request("POST", target, &[("content-type", "application/json")], body).await
    }
}
