//! nginx as a proxy in front of the bare axum server: what is usually put before a web backend.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::http;
use crate::{
    contestant::{Contestant, Load, Running},
    load_tools::{self, Protocol},
    other_end::OtherEnd,
    sample::Sample,
};

pub(crate) struct Nginx(pub(crate) Protocol);

impl Contestant for Nginx {
    fn name(&self) -> &'static str {
        match self.0 {
            Protocol::Http1 => "nginx-axum-http",
            Protocol::Http2 => "nginx-axum-h2",
        }
    }

    fn start(&self) -> Result<Box<dyn Running>> {
        let behind = OtherEnd::start(http::NAME, &[])?;
        let folder = tempfile::tempdir()?;
        // Free a moment ago; nobody else asks for ports on this machine while we measure.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let config = folder.path().join("nginx.conf");
        fs::write(&config, configuration(self.0, folder.path(), port, behind.word(0)?))?;
        let proxy = Command::new("nginx")
            .args(["-c", &config.to_string_lossy()])
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run `nginx`: install the package nginx-light")?;
        let running = Proxy {
            protocol: self.0,
            url: format!("http://127.0.0.1:{port}/Xy?x=2&y=2"),
            proxy,
            _behind: behind,
            _folder: folder,
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(5), "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Box::new(running))
    }
}

fn configuration(protocol: Protocol, folder: &std::path::Path, port: u16, behind: &str) -> String {
    let folder = folder.display();
    let h2 = if protocol == Protocol::Http2 { " http2" } else { "" };
    format!(
        "daemon off; worker_processes 2; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream behind {{ server {behind}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}{h2};
    location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
  }}
}}
"
    )
}

struct Proxy {
    protocol: Protocol,
    url: String,
    proxy: Child,
    _behind: OtherEnd,
    _folder: TempDir,
}

impl Running for Proxy {
    fn run(&mut self, load: &Load) -> Result<Sample> {
        load_tools::load(self.protocol, &self.url, load)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its workers end with the master if that is asked politely.
        let pid = self.proxy.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.proxy.wait();
    }
}
