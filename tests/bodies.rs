//! The examples of resources, bytes and replies in parts, as a client with curl uses them.

mod support;

use std::{
    io::{Cursor, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use image::{ImageFormat, Rgb, RgbImage};
use layercake_lab::{Program, eventually};
use serde_json::{Value, json};
use support::{Folders, SOON, built, curl, free_port, of_mesh, workers_of};

/// An example that runs, and where.
struct Example {
    program: Program,
    url: String,
    folders: Folders,
}

impl Example {
    fn start(name: &str) -> Self {
        let (folders, listen) = (Folders::new(), format!("127.0.0.1:{}", free_port()));
        let command = Command::new(built(name));
        let program = Program::start(&mut of_mesh(command, &folders.mesh("host"), &[&listen]));
        let url = format!("http://{listen}");
        eventually(SOON, name, || {
            let (status, _) = curl(&[&format!("{url}/readyz")]);
            (status == 200).then_some(())
        });
        Self { program, url, folders }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folders.mesh(name);
        std::fs::write(&path, bytes).expect("a folder to write to");
        path
    }

    fn ends(self) {
        self.program.signal(15);
        let (_, status) = self.program.wait_end(SOON);
        assert!(status.success(), "{:?}", self.program.lines());
    }
}

fn at(path: &Path) -> String {
    format!("@{}", path.display())
}

fn value(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn an_image_goes_in_and_its_thumbnail_comes_out() {
    let example = Example::start("thumbnails");
    let mut image = RgbImage::new(1600, 900);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        *pixel = Rgb([(x % 256) as u8, (y % 256) as u8, ((x * y) % 256) as u8]);
    }
    let out = example.folders.mesh("small.png");
    for (kind, format) in [("image/png", ImageFormat::Png), ("image/jpeg", ImageFormat::Jpeg)] {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).expect("encodes");
        let file = example.file("large", &bytes);
        let (status, _) = curl(&[
            "-H",
            &format!("content-type: {kind}"),
            "--data-binary",
            &at(&file),
            "-o",
            &out.display().to_string(),
            &example.url("/thumbnails?size=160"),
        ]);
        assert_eq!(status, 200, "{kind}");
        let small = image::open(&out).expect("a PNG");
        assert_eq!((small.width(), small.height()), (160, 90), "{kind}");
    }

    let png = "content-type: image/png";
    let text = at(&example.file("text", b"no image at all"));
    let thumbnails = example.url("/thumbnails");
    let (status, body) = curl(&["-H", png, "--data-binary", &text, &thumbnails]);
    assert_eq!(status, 422, "{body}");
    assert_eq!(value(&body)["type"], "/problems/refused/Thumbnail/Unreadable");
    let (status, body) = curl(&["-H", png, "-d", "", &example.url("/thumbnails?size=0")]);
    assert_eq!((status, &value(&body)["errors"][0]["parameter"]), (400, &json!("size")), "{body}");
    let (status, _) = curl(&["-H", "content-type: image/gif", "-d", "GIF89a", &thumbnails]);
    assert_eq!(status, 415);
    example.ends();
}

/// The most memory that a process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn two_hundred_megabytes_pass_through_a_worker_in_little_memory() {
    const SIZE: usize = 200_000_000;
    let example = Example::start("cipher");
    let mesh = example.folders.mesh("host");
    let workers =
        eventually(SOON, "two workers", || Some(workers_of(&mesh, None)).filter(|w| w.len() == 2));
    let all = || workers.iter().copied().chain([example.program.pid()]);
    let before: Vec<u64> = all().map(peak).collect();

    let file = example.folders.mesh("film");
    let pattern: Vec<u8> = (0..=250_u8).cycle().take(SIZE).collect();
    std::fs::write(&file, &pattern).expect("a folder to write to");
    let mut curl = Command::new("curl")
        .args(["-s", "-N", "--fail", "--max-time", "120", "-T"])
        .arg(&file)
        .arg(example.url("/cipher?key=7"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut out = curl.stdout.take().expect("it is piped");
    let mut part = vec![0; 1 << 16];
    let mut count = 0;
    loop {
        let read = out.read(&mut part).expect("a pipe");
        if read == 0 {
            break;
        }
        for (at, byte) in part[..read].iter().enumerate() {
            assert_eq!(*byte, pattern[count + at] ^ 7, "at {}", count + at);
        }
        count += read;
    }
    assert!(curl.wait().expect("it ends").success());
    assert_eq!(count, SIZE);
    for (pid, before) in all().zip(before) {
        let grown = peak(pid) - before;
        println!("process {pid}: {} KiB, {} more", peak(pid) >> 10, grown >> 10);
        assert!(grown < 32 << 20, "process {pid} has grown by {grown} bytes");
    }
    example.ends();
}

#[test]
fn a_ticker_ticks_as_lines_and_as_events_and_stops_with_its_listener() {
    let example = Example::start("ticker");
    let (status, body) = curl(&[&example.url("/ticks?every_ms=5&count=3")]);
    assert_eq!(status, 200, "{body}");
    let numbers: Vec<_> = body.lines().map(|line| value(line)["number"].clone()).collect();
    assert_eq!(numbers, [0, 1, 2]);

    let events = ["-H", "accept: text/event-stream"];
    let (status, body) =
        curl(&[&events[..], &[&example.url("/ticks?every_ms=5&count=2")]].concat());
    assert_eq!(status, 200, "{body}");
    assert_eq!(body.matches("data: {\"number\":").count(), 2, "{body}");
    assert!(body.ends_with("event: end\ndata:\n\n"), "{body}");

    // One that would never end: the example ends in time all the same.
    let mut endless = Command::new("curl")
        .args(["-s", "-N", "--max-time", "60", &example.url("/ticks?every_ms=5")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut first = [0; 64];
    let mut out = endless.stdout.take().expect("it is piped");
    out.read_exact(&mut first).expect("ticks come");
    drop(out);
    endless.kill().expect("it runs");
    endless.wait().expect("it ends");
    let (status, _) = curl(&[&example.url("/ticks?count=1")]);
    assert_eq!(status, 200);
    example.ends();
}

#[test]
fn customers_are_kept_as_resources() {
    let example = Example::start("resources");
    let json = "content-type: application/json";
    let customers = example.url("/customers");
    let (status, body) = curl(&[&customers]);
    assert_eq!((status, body.as_str()), (200, "[]"));
    let (status, body) = curl(&["-H", json, "-d", r#"{"name":"Ann"}"#, &customers]);
    assert_eq!(status, 201, "{body}");
    let ann = value(&body);
    assert_eq!((&ann["id"], &ann["customer"]["name"]), (&json!(1), &json!("Ann")));

    let one = example.url("/customers/1");
    assert_eq!(value(&curl(&[&one]).1), ann);
    let (status, body) = curl(&["-H", "if-none-match: \"1\"", &one]);
    assert_eq!((status, body.as_str()), (304, ""));
    let put = ["-X", "PUT", "-H", json, "-d", r#"{"name":"Bea","age":41}"#, &one];
    let (status, body) = curl(&[&["-H", "if-match: \"1\""][..], &put].concat());
    assert_eq!((status, &value(&body)["version"]), (200, &json!(2)), "{body}");
    let (status, body) = curl(&[&["-H", "if-match: \"1\""][..], &put].concat());
    assert_eq!((status, &value(&body)["error"]), (412, &json!("Changed")), "{body}");

    assert_eq!(curl(&["-X", "DELETE", &one]), (204, String::new()));
    for arguments in [&[one.as_str()][..], &["-X", "DELETE", &one], &put] {
        assert_eq!(curl(arguments).0, 404, "{arguments:?}");
    }
    assert_eq!(curl(&["-X", "PATCH", &one]).0, 405);
    assert_eq!(curl(&[&example.url("/customers/one")]).0, 400);
    assert_eq!(curl(&["-H", json, "-d", r#"{"nom":"Ann"}"#, &customers]).0, 422);
    example.ends();
}
