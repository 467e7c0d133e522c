//! Programs of the ancestor, the Python library layer-cake, before our demo: what its client sends and
//! needs, byte for byte, and the client itself where it is installed.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use layercake_lab::Program;
use serde_json::Value;
use support::{Folders, SOON, layer_cake};

fn demo(folders: &Folders, arguments: &[&str]) -> (Program, String) {
    let common = ["demo", "--ancestor", "--pool", "tasks", "--listen", "127.0.0.1:0"];
    let all = [&common[..], arguments].concat();
    let demo = Program::start(&mut layer_cake(&folders.mesh("host"), &all));
    let (_, line) = demo.wait_line(|line| line.starts_with("ready: http://"), SOON);
    (demo, line["ready: http://".len()..].to_owned())
}

/// One connection, which every request of a client goes through.
struct Client(BufReader<TcpStream>);

/// What the ancestor's client would see.
struct Answer {
    status: String,
    headers: Vec<String>,
    body: String,
}

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a demo that listens");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, request: &str) -> Answer {
        self.0.get_mut().write_all(request.as_bytes()).expect("a connection that is kept");
        let status = self.line();
        let headers: Vec<_> =
            std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect();
        // The client knows this name in no other case, and chunks not at all.
        let length = headers.iter().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.unwrap_or_else(|| panic!("no length in {status}, {headers:?}"));
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).expect("a whole body");
        Answer { status, headers, body: String::from_utf8(body).expect("UTF-8") }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("half a line: `{line}`")).to_owned()
    }

    fn get(&mut self, target: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\n\r\n"))
    }

    /// To the byte what the ancestor's client sends.
    fn post(&mut self, name: &str, json: &str) -> Answer {
        let length = json.len();
        self.send(&format!(
            "POST /{name} HTTP/1.1\r\nUser-Agent: Layer-Cake-API-client/1.0\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\n\r\n{json}"
        ))
    }
}

impl Answer {
    /// What is wanted of every answer, or the client waits for ever.
    fn is_readable(&self) {
        let rest = self.status.strip_prefix("HTTP/1.1 ").expect(&self.status);
        let (code, reason) = rest.split_once(' ').expect(&self.status);
        assert!(code.len() == 3 && reason.len() <= 16, "{}", self.status);
        for header in &self.headers {
            let (name, value) = header.split_once(": ").expect(header);
            assert!(name.len() <= 128 && (1..=1024).contains(&value.len()), "{header}");
            assert!(!value.starts_with(' '), "{header}");
            assert_ne!(name, "Transfer-Encoding");
            assert_ne!(name, "Connection");
        }
    }

    fn is_json(&self) -> Value {
        self.is_readable();
        let wanted = "Content-Type: application/json".to_owned();
        assert!(self.headers.contains(&wanted), "{:?}", self.headers);
        let server = "Server: Layer-Cake-API-server/1.0".to_owned();
        assert!(self.headers.contains(&server), "{:?}", self.headers);
        serde_json::from_str(&self.body).expect(&self.body)
    }

    fn is_table(&self, columns: usize, rows: usize) {
        assert_eq!(self.status, "HTTP/1.1 200 OK", "{}", self.body);
        self.is_json();
        let begin = r#"{"value":["vector<vector<float8>>","#;
        let table = self.body.strip_prefix(begin).and_then(|rest| rest.strip_suffix(",[]]}"));
        support::assert_table(table.expect(&self.body), columns, rows);
        let numbers = table.expect("a table").split([',', '[', ']']).filter(|n| !n.is_empty());
        for number in numbers {
            assert!(number.contains(['.', 'e']), "{number} is no float to the ancestor");
        }
    }

    fn is_refused(&self, why: &str) {
        self.is_readable();
        assert_eq!(self.status, "HTTP/1.1 400 Bad Request", "{}", self.body);
        assert!(
            self.headers.contains(&"Content-Type: plain/text".to_owned()),
            "{:?}",
            self.headers
        );
        assert_eq!(self.body, why);
    }
}

#[test]
fn a_client_gets_its_tables_over_one_connection() {
    let folders = Folders::new();
    let (_demo, address) = demo(&folders, &["--workers", "2"]);
    let mut client = Client::connect(&address);
    client.post("Xy", r#"{"value":{"x":1,"y":3}}"#).is_table(1, 3);
    client.post("Xy", r#"{"value":{"x":20,"y":20}}"#).is_table(20, 20);
    client.get("/Xy?x=2&y=2").is_table(2, 2);
    client.get("/a/b/c/Xy?x=1&y=1").is_table(1, 1);
    client.get("/textures/Xy?x=1&x=%32&y=1&").is_table(2, 1);
    client.get("/Xy?").is_table(0, 8);
    client.send("DELETE /Xy?x=1&y=1 HTTP/1.1\r\n\r\n").is_table(1, 1);
    let form =
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nx=2&y=1";
    client.send(&format!("POST /Xy HTTP/1.1\r\n{form}")).is_table(2, 1);
    client.post("Xy", r#"{"value":{"x":1,"y":null,"z":7}}"#).is_table(1, 8);
    client.post("Xy", "").is_table(0, 8);
}

#[test]
fn what_the_ancestor_refuses_or_hangs_on_is_refused() {
    let folders = Folders::new();
    let (_demo, address) = demo(&folders, &[]);
    let mut client = Client::connect(&address);
    for (target, why) in [
        ("/Xy?z=1", r#"unknown key "z" in "Xy" query"#),
        ("/Xy?x", r#"unexpected field "x" query"#),
        ("/Xy?x=1.5", r#"no conversion for "x" (no transform float/Integer8)"#),
        ("/Xy?x=null", r#"no conversion for "x" (no transform NoneType/Integer8)"#),
        ("/Xy", r#"unexpected content type "None" for HTTP request "Xy""#),
        ("/Nope", "unknown and defaulting to HTTP requests disabled"),
        ("//", "unknown and defaulting to HTTP requests disabled"),
    ] {
        let expected = format!("cannot recover request \"{target}\" ({why})");
        client.get(target).is_refused(&expected);
    }
    for (body, why) in [
        (r#"{"x":2,"y":1}"#, r#"cannot decode (no "value" available)"#),
        (r#"{"value":["test_api.Xy",{},[]]}"#, "no transform list/UserDefined"),
        (r#"{"value":{"x":"abc"}}"#, r#"near "x" (no transform str/Integer8)"#),
    ] {
        let expected = format!("cannot recover request \"/Xy\" ({why})");
        client.post("Xy", body).is_refused(&expected);
    }
    // What it would have passed on and we do not is a fault, which its client can read.
    let fault = client.post("Xy", r#"{"value":{"x":5000,"y":1}}"#);
    assert_eq!(fault.status, "HTTP/1.1 400 Client Error");
    let value = fault.is_json();
    assert_eq!(value["value"][0], "layer_cake.point_runtime.Faulted");
    assert_eq!(value["value"][1]["error_code"], 400);
    // A body too large, and then the next request: all within what its client can read.
    let large = "x".repeat(2 << 20);
    let answer = Client::connect(&address).post("Xy", &large);
    answer.is_readable();
    assert_eq!(answer.status, "HTTP/1.1 413 Too Large");
    client.post("Xy", r#"{"value":{"x":1,"y":1}}"#).is_table(1, 1);
}

#[test]
fn a_gateway_without_workers_says_so_in_the_ancestors_words() {
    let folders = Folders::new();
    let arguments = ["demo", "gateway", "--ancestor", "--listen"];
    let address = format!("127.0.0.1:{}", support::free_port());
    let all = [&arguments[..], &[address.as_str()]].concat();
    let _gateway = Program::start(&mut layer_cake(&folders.mesh("host"), &all));
    layercake_lab::eventually(SOON, "a gateway that listens", || {
        TcpStream::connect(&address).ok().map(drop)
    });
    let mut client = Client::connect(&address);
    for _ in 0..2 {
        let answer = client.post("Xy", r#"{"value":{"x":1,"y":3}}"#);
        assert_eq!(answer.status, "HTTP/1.1 500 Server Error");
        answer.is_json();
        assert_eq!(
            answer.body,
            r#"{"value":["layer_cake.point_runtime.TemporarilyUnavailable",{"condition":"Service temporarily unavailable (no worker and no immediate prospects of one)","explanation":null,"error_code":null,"exit_status":null,"unavailable":[]},[]]}"#
        );
    }
}

/// Where `cargo xtask setup` installs the ancestor.
fn ancestor() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("this test's path");
    let target = own.ancestors().nth(3).expect("a target folder");
    let python = target.join("ancestor/bin/python");
    let known = Command::new(&python).args(["-c", "import layer_cake"]).output();
    known.is_ok_and(|output| output.status.success()).then_some(python)
}

const TEST_API: &str = r"
import layer_cake as lc

class Xy(object):
    def __init__(self, x: int=1, y: int=1):
        self.x = x
        self.y = y

lc.bind(Xy)
table_type = lc.def_type(list[list[float]])
";

const CLIENT: &str = r"
import random
import layer_cake as lc
from test_api import Xy, table_type

def ask(self, address: lc.HostPort=None, count: int=1):
    lc.connect(self, address, http_client='/', application_json=True)
    m = self.input()
    if not isinstance(m, lc.Connected):
        return m
    server = self.return_address
    for i in range(count):
        x, y = random.randint(1, 30), random.randint(1, 30)
        self.send(Xy(x, y), server)
        m = self.input()
        if not isinstance(m, list):
            return m
        floats = all(isinstance(v, float) for row in m for v in row)
        if len(m) != y or any(len(row) != x for row in m) or not floats:
            return lc.Faulted('wrong shape')
    return count

lc.bind(ask)

def main(self, port: int=0, clients: int=8, count: int=50) -> int:
    for i in range(clients):
        self.create(ask, lc.HostPort('127.0.0.1', port), count)
    total = 0
    for i in range(clients):
        m = self.input()
        if isinstance(m, lc.Returned):
            m = getattr(m, 'message', getattr(m, 'value', None))
        if not isinstance(m, int):
            return lc.Faulted('a client ended', str(m))
        total += m
    return total

lc.bind(main)

if __name__ == '__main__':
    lc.create(main)
";

#[test]
fn the_ancestors_own_client_is_served() {
    let Some(python) = ancestor() else {
        println!("SKIPPED: the ancestor is not installed; `cargo xtask setup` does it");
        return;
    };
    let folders = Folders::new();
    let (_demo, address) = demo(&folders, &["--workers", "4"]);
    let place = folders.mesh("python");
    fs::create_dir(&place).expect("a temporary folder");
    fs::write(place.join("test_api.py"), TEST_API).expect("a file");
    fs::write(place.join("client.py"), CLIENT).expect("a file");
    let port = address.rsplit(':').next().expect("a port");
    let told = run_client(&python, &place, &format!("--port={port}"));
    assert_eq!(told, "400", "8 clients with 50 tables each");
}

fn run_client(python: &Path, place: &Path, port: &str) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").arg(python).args(["client.py", port]).current_dir(place);
    let (ok, out, error) = support::run(command);
    assert!(ok, "{out} {error}");
    out
}
